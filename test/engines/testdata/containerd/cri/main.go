// SPDX-License-Identifier: Apache-2.0

// Command cri makes one call of the Container Runtime Interface, as kubelet does:
//
//	cri SOCKET METHOD REQUEST
//
// METHOD is a method of the runtime service. The request is JSON with the field names of the
// interface, and so is the response on standard output. If the call fails, the exit status is 1,
// and the reason is on standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// timeout is kubelet's time limit for RunPodSandbox, the slowest call.
const timeout = 4 * time.Minute

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "cri: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("usage: cri SOCKET METHOD REQUEST")
	}
	name := protoreflect.FullName(cri.RuntimeService_ServiceDesc.ServiceName)
	found, err := protoregistry.GlobalFiles.FindDescriptorByName(name.Append(protoreflect.Name(args[1])))
	if err != nil {
		return fmt.Errorf("no method %s: %w", args[1], err)
	}
	method := found.(protoreflect.MethodDescriptor)
	request, response := dynamicpb.NewMessage(method.Input()), dynamicpb.NewMessage(method.Output())
	if err := protojson.Unmarshal([]byte(args[2]), request); err != nil {
		return fmt.Errorf("the request of %s: %w", args[1], err)
	}
	conn, err := grpc.NewClient("unix:"+args[0], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := conn.Invoke(ctx, fmt.Sprintf("/%s/%s", name, method.Name()), request, response); err != nil {
		return fmt.Errorf("%s: %w", args[1], err)
	}
	out, err := protojson.Marshal(response)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(out, '\n'))
	return err
}
