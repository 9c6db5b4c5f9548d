// SPDX-License-Identifier: Apache-2.0

// Tests of clone4(2) in the form of gVisor's own syscall tests. BUILD.example adds them
// to a gVisor tree. They need only googletest:
//
//   g++ -std=c++17 -O2 -static clone4_test.cc -lgtest -lgtest_main -o clone4_test
//
// The tests must pass on a Linux with clone4 first. On a kernel without clone4, each test
// is skipped with a message.

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"


namespace gvisor {
namespace testing {

namespace {

// Flags that clone once had, and that clone4 refuses.
constexpr uint64_t kClonePid = 0x00001000;
constexpr uint64_t kCloneDetached = 0x00400000;
constexpr uint64_t kCloneStopped = 0x02000000;
constexpr uint64_t kValidFlags =
    0xffffffff & ~(kClonePid | kCloneDetached | kCloneStopped);

// Abi is an ABI of the call.
struct Abi {
  const char* name;
  uint64_t number;
  size_t word;  // size of a field of the struct
  bool int80;

  size_t StructSize() const { return 5 * word; }
};

#if defined(__x86_64__)
constexpr uint64_t kX32Bit = 0x40000000;
const std::vector<Abi> kAbis = {
    {"amd64", 323, 8, false},
    {"x32", kX32Bit + 546, 4, false},
    {"i386", 359, 4, true},
};
#elif defined(__aarch64__)
const std::vector<Abi> kAbis = {{"arm64", 282, 8, false}};
#define MAP_32BIT 0
#else
#error "this architecture has no clone4"
#endif

// Invoke makes the call through an ABI and returns the kernel's result, -errno for an error.
// With fn, the child calls fn(arg) on its stack, and exits with the return value. The child
// finds fn and arg in registers.
long Invoke(uint64_t number, bool int80, uint64_t flags_high,
            uint64_t flags_low, uint64_t size, uint64_t args,
            int (*fn)(void*) = nullptr, void* arg = nullptr) {
#if defined(__x86_64__)
  long ret;
#define CHILD              \
  "testq %%rax, %%rax\n\t" \
  "jnz 1f\n\t"             \
  "testq %%r12, %%r12\n\t" \
  "jz 1f\n\t"              \
  "xorl %%ebp, %%ebp\n\t"  \
  "andq $-16, %%rsp\n\t"   \
  "movq %%r13, %%rdi\n\t"  \
  "callq *%%r12\n\t"       \
  "movl %%eax, %%edi\n\t"  \
  "movl $60, %%eax\n\t"    \
  "syscall\n\t"            \
  "1:"
  register uint64_t r12 __asm__("r12") = reinterpret_cast<uint64_t>(fn);
  register uint64_t r13 __asm__("r13") = reinterpret_cast<uint64_t>(arg);
  if (int80) {
    // The result has 32 bits. The upper bits of the register are undefined.
    __asm__ __volatile__(
        "int $0x80\n\t"
        "movslq %%eax, %%rax\n\t" CHILD
        : "=a"(ret)
        : "0"(number), "b"(flags_high), "c"(flags_low), "d"(size), "S"(args),
          "r"(r12), "r"(r13)
        : "rdi", "r8", "r9", "r10", "r11", "cc", "memory");
    return ret;
  }
  register uint64_t r10 __asm__("r10") = args;
  __asm__ __volatile__("syscall\n\t" CHILD
                       : "=a"(ret)
                       : "0"(number), "D"(flags_high), "S"(flags_low),
                         "d"(size), "r"(r10), "r"(r12), "r"(r13)
                       : "rcx", "r11", "cc", "memory");
  return ret;
#undef CHILD
#else
  (void)int80;
  register uint64_t x0 __asm__("x0") = flags_high;
  register uint64_t x1 __asm__("x1") = flags_low;
  register uint64_t x2 __asm__("x2") = size;
  register uint64_t x3 __asm__("x3") = args;
  register uint64_t x8 __asm__("x8") = number;
  register uint64_t x9 __asm__("x9") = reinterpret_cast<uint64_t>(fn);
  register uint64_t x10 __asm__("x10") = reinterpret_cast<uint64_t>(arg);
  __asm__ __volatile__(
      "svc #0\n\t"
      "cbnz x0, 1f\n\t"
      "cbz x9, 1f\n\t"
      "mov x29, #0\n\t"
      "mov x0, x10\n\t"
      "blr x9\n\t"
      "mov x8, #93\n\t"
      "svc #0\n\t"
      "1:"
      : "+r"(x0)
      : "r"(x1), "r"(x2), "r"(x3), "r"(x8), "r"(x9), "r"(x10)
      : "cc", "memory");
  return x0;
#endif
}

// HasClone4 probes for clone4 without creating a child. The arguments are also invalid for
// the calls that have the numbers in other kernels. Only clone4 reads the struct first.
bool HasClone4() {
  return Invoke(kAbis[0].number, false, ~0u, ~0u, 8, ~0ull) == -EFAULT;
}

// Args has the values of the struct.
struct Args {
  uint64_t ptid = 0;
  uint64_t ctid = 0;
  uint64_t stack_start = 0;
  uint64_t stack_size = 0;
  uint64_t tls = 0;
};

class Clone4Test : public ::testing::TestWithParam<Abi> {
 protected:
  void SetUp() override {
    if (!HasClone4()) {
      GTEST_SKIP() << "this kernel has no clone4";
    }
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    // A 32-bit pointer can hold the addresses. The last page is inaccessible.
    const size_t size = kStackPages * page_;
    void* m = mmap(nullptr, size + 3 * page_, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    ASSERT_NE(m, MAP_FAILED) << strerror(errno);
    memory_ = static_cast<char*>(m);
    ASSERT_EQ(mprotect(memory_ + size + 2 * page_, page_, PROT_NONE), 0);
    end_of_stack_ = memory_ + size;
    shared_ = reinterpret_cast<Shared*>(end_of_stack_);
    bad_address_ = reinterpret_cast<uint64_t>(end_of_stack_) + 2 * page_;
  }

  void TearDown() override {
    if (memory_ != nullptr) {
      munmap(memory_, (kStackPages + 3) * page_);
    }
  }

  const Abi& abi() const { return GetParam(); }

  // Put writes the first size bytes of a struct directly before the inaccessible page, and
  // returns their address.
  uint64_t Put(const Args& args, size_t size) {
    const uint64_t values[] = {args.ptid, args.ctid, args.stack_start,
                               args.stack_size, args.tls};
    unsigned char buf[sizeof(values)];
    for (size_t i = 0; i < 5; i++) {
      memcpy(buf + i * abi().word, &values[i], abi().word);  // little endian
    }
    char* at = reinterpret_cast<char*>(bad_address_) - size;
    memcpy(at, buf, size);
    return reinterpret_cast<uint64_t>(at);
  }

  long Call(uint64_t flags, uint64_t size, uint64_t args,
            int (*fn)(void*) = nullptr, void* arg = nullptr) {
    return Invoke(abi().number, abi().int80, flags >> 32, flags & 0xffffffff,
                  size, args, fn, arg);
  }

  long Call(uint64_t flags, const Args& args, int (*fn)(void*) = nullptr,
            void* arg = nullptr) {
    return Call(flags, abi().StructSize(), Put(args, abi().StructSize()), fn,
                arg);
  }

  // Significant returns the number of bytes of an address without leading zero bytes.
  static size_t Significant(uint64_t addr) {
    size_t n = 0;
    for (; addr != 0; addr >>= 8) {
      n++;
    }
    return n;
  }

  // Memory in which a child leaves results for its parent.
  struct Shared {
    int32_t ptid, ctid;
    volatile uint64_t value, stack;
    volatile int32_t done;
  };

  // Reap waits for a child and returns its status, or -1 if there is no such child.
  static int Reap(pid_t pid, int options = __WALL) {
    int status;
    pid_t got;
    do {
      got = waitpid(pid, &status, options);
    } while (got == -1 && errno == EINTR);
    return got == pid ? status : -1;
  }

  // WantFork checks a child with a copy of the memory. The child exits here.
  void WantFork(long pid) {
    if (pid == 0) {
      _exit(42);
    }
    ASSERT_GT(pid, 0) << strerror(-pid);
    const int status = Reap(pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 42) << status;
  }

  // WantError checks for an error. A child must not continue from here.
  void WantError(long got, int want) {
    if (got == 0) {
      _exit(1);
    }
    EXPECT_EQ(got, -want) << strerror(want);
    if (got > 0) {
      Reap(got);
    }
  }

  static constexpr size_t kStackPages = 16;
  size_t page_ = 0;
  char* memory_ = nullptr;
  char* end_of_stack_ = nullptr;
  Shared* shared_ = nullptr;
  uint64_t bad_address_ = 0;
};

TEST_P(Clone4Test, IsLikeFork) { WantFork(Call(SIGCHLD, 0, 0)); }

TEST_P(Clone4Test, SizeTooLarge) {
  std::vector<uint64_t> sizes = {abi().StructSize() + 1, 4096, 0x7fffffff,
                                 0x80000000, 0xffffffff};
  if (abi().word == 8) {
    sizes.insert(sizes.end(), {1ull << 32, 1ull << 63, ~0ull});
  }
  for (uint64_t size : sizes) {
    SCOPED_TRACE(size);
    WantError(Call(SIGCHLD, size, Put(Args(), abi().StructSize())), EINVAL);
    // The size is checked before the address and before the flags.
    WantError(Call(~0ull, size, bad_address_), EINVAL);
  }
}

// With 32-bit words, the size is the lower half of the register.
TEST_P(Clone4Test, SizeOfCompatWord) {
  if (abi().word == 8) {
    return;
  }
  WantFork(Call(SIGCHLD, 1ull << 32, bad_address_));
}

TEST_P(Clone4Test, BadAddress) {
  for (uint64_t size = 1; size <= abi().StructSize(); size++) {
    SCOPED_TRACE(size);
    WantError(Call(SIGCHLD, size, bad_address_), EFAULT);
    WantError(Call(SIGCHLD, size, 0), EFAULT);
    WantError(Call(SIGCHLD, size, bad_address_ - size + 1), EFAULT);
    // The struct is read before the flags are checked.
    WantError(Call(~0ull, size, bad_address_), EFAULT);
  }
}

TEST_P(Clone4Test, AddressIsNotLookedAtWithoutSize) {
  WantFork(Call(SIGCHLD, 0, bad_address_));
}

// Every size is valid, even one that ends inside a field, and the other bytes are 0. The
// bytes behind the struct are inaccessible.
TEST_P(Clone4Test, EverySize) {
  Args args;
  args.ptid = reinterpret_cast<uint64_t>(&shared_->ptid);
  args.ctid = reinterpret_cast<uint64_t>(&shared_->ctid);
  for (size_t size = 0; size <= abi().StructSize(); size++) {
    SCOPED_TRACE(size);
    shared_->ptid = shared_->ctid = -1;
    const long pid = Call(SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID,
                          size, Put(args, size));
    WantFork(pid);
    if (size >= Significant(args.ptid)) {
      EXPECT_EQ(shared_->ptid, pid);
    } else {
      EXPECT_EQ(shared_->ptid, -1);
    }
    if (size >= abi().word + Significant(args.ctid)) {
      EXPECT_EQ(shared_->ctid, pid);
    } else {
      EXPECT_EQ(shared_->ctid, -1);
    }
  }
}

TEST_P(Clone4Test, UnknownFlags) {
  for (int bit = 8; bit < 64; bit++) {
    const uint64_t flag = 1ull << bit;
    if (!(flag & kValidFlags)) {
      SCOPED_TRACE(bit);
      WantError(Call(flag | SIGCHLD, 0, 0), EINVAL);
    }
  }
}

TEST_P(Clone4Test, FlagsThatDoNotGoTogether) {
  for (uint64_t flags : std::vector<uint64_t>{
           CLONE_SIGHAND,
           CLONE_THREAD,
           CLONE_THREAD | CLONE_VM,
           CLONE_THREAD | CLONE_SIGHAND,
           CLONE_NEWNS | CLONE_FS,
           CLONE_NEWUSER | CLONE_FS,
           CLONE_NEWUSER | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM,
           CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM,
       }) {
    SCOPED_TRACE(flags);
    WantError(Call(flags | SIGCHLD, 0, 0), EINVAL);
  }
}

// The flags are two 32-bit words. The upper halves of the registers are ignored.
TEST_P(Clone4Test, UpperHalvesOfFlags) {
  WantFork(Invoke(abi().number, abi().int80, 0xdeadbeefull << 32,
                  (0xdeadbeefull << 32) | SIGCHLD, 0, 0));
}

TEST_P(Clone4Test, ParentAndChildTid) {
  Args args;
  args.ptid = reinterpret_cast<uint64_t>(&shared_->ptid);
  args.ctid = reinterpret_cast<uint64_t>(&shared_->ctid);
  const long pid =
      Call(SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, args);
  if (pid == 0) {
    _exit(shared_->ptid == getpid() && shared_->ctid == getpid() ? 42 : 1);
  }
  EXPECT_EQ(shared_->ptid, pid);
  WantFork(pid);
}

TEST_P(Clone4Test, BadTidAddressIsNoError) {
  Args args;
  args.ptid = args.ctid = bad_address_;
  WantFork(Call(SIGCHLD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID |
                    CLONE_CHILD_CLEARTID,
                args));
}

// An invalid signal is not an error: the child exits without a signal, and the parent waits
// for it with __WCLONE or __WALL.
TEST_P(Clone4Test, ExitSignal) {
  for (int signal : {0, SIGCHLD, SIGUSR1, 65, 255}) {
    SCOPED_TRACE(signal);
    sigset_t set, old;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    ASSERT_EQ(sigprocmask(SIG_BLOCK, &set, &old), 0);
    const long pid = Call(signal, 0, 0);
    if (pid == 0) {
      _exit(42);
    }
    ASSERT_GT(pid, 0) << strerror(-pid);
    if (signal != SIGCHLD) {
      EXPECT_EQ(Reap(pid, 0), -1) << "a wait for ordinary children found it";
    }
    const int status = Reap(pid, signal == SIGCHLD ? 0 : __WCLONE);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 42) << status;
    const timespec now = {};
    EXPECT_EQ(sigtimedwait(&set, nullptr, &now), signal == SIGUSR1 ? SIGUSR1 : -1);
    ASSERT_EQ(sigprocmask(SIG_SETMASK, &old, nullptr), 0);
  }
}

// The child shares the memory of its parent, and has no thread-local variables of its own,
// so it must not call the C library.
int StoreStack(void* arg) {
  auto* out = static_cast<volatile uint64_t*>(arg);
  out[1] = reinterpret_cast<uint64_t>(__builtin_frame_address(0));
  out[0] = 1;
  return 7;
}

// stack_start is the stack pointer, and stack_size is ignored.
TEST_P(Clone4Test, Stack) {
  for (uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{0xffffffff}}) {
    SCOPED_TRACE(size);
    Args args;
    args.stack_start = reinterpret_cast<uint64_t>(end_of_stack_);
    args.stack_size = size;
    shared_->value = 0;
    const long pid = Call(CLONE_VM | SIGCHLD, args, StoreStack,
                          const_cast<uint64_t*>(&shared_->value));
    ASSERT_GT(pid, 0) << strerror(-pid);
    const int status = Reap(pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
    EXPECT_EQ(shared_->value, 1u);
    EXPECT_LT(shared_->stack, args.stack_start);
    EXPECT_GT(shared_->stack + page_, args.stack_start);
  }
}

// The parent waits until the child has exited.
TEST_P(Clone4Test, Vfork) {
  Args args;
  args.stack_start = reinterpret_cast<uint64_t>(end_of_stack_);
  for (int i = 0; i < 20; i++) {
    shared_->value = 0;
    const long pid = Call(CLONE_VM | CLONE_VFORK | SIGCHLD, args, StoreStack,
                          const_cast<uint64_t*>(&shared_->value));
    EXPECT_EQ(shared_->value, 1u);
    ASSERT_GT(pid, 0) << strerror(-pid);
    EXPECT_GE(Reap(pid), 0);
  }
}

// The kernel stores the ID of a thread. When the thread exits, the kernel clears the ID
// and wakes the task that waits for that.
TEST_P(Clone4Test, Thread) {
  Args args;
  args.stack_start = reinterpret_cast<uint64_t>(end_of_stack_);
  args.ptid = args.ctid = reinterpret_cast<uint64_t>(&shared_->ctid);
  const long tid =
      Call(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
               CLONE_SYSVSEM | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
           args, StoreStack, const_cast<uint64_t*>(&shared_->value));
  ASSERT_GT(tid, 0) << strerror(-tid);
  int32_t now;
  while ((now = __atomic_load_n(&shared_->ctid, __ATOMIC_ACQUIRE)) != 0) {
    ASSERT_EQ(now, tid);
    syscall(SYS_futex, &shared_->ctid, FUTEX_WAIT, now, nullptr, nullptr, 0);
  }
  EXPECT_EQ(shared_->value, 1u);
  EXPECT_EQ(Reap(tid), -1) << "a thread is no child";
}

#if defined(__x86_64__)

int StoreFsBase(void* arg) {
  constexpr uint64_t kArchPrctl = 158, kArchGetFs = 0x1003;
  long ret;
  __asm__ __volatile__("syscall"
                       : "=a"(ret)
                       : "0"(kArchPrctl), "D"(kArchGetFs), "S"(arg)
                       : "rcx", "r11", "memory");
  return ret != 0;
}

// The caller is a 64-bit task through every ABI, and its thread pointer is the FS base.
TEST_P(Clone4Test, Tls) {
  Args args;
  args.stack_start = reinterpret_cast<uint64_t>(end_of_stack_);
  args.tls = reinterpret_cast<uint64_t>(memory_);
  const long pid = Call(CLONE_VM | CLONE_VFORK | CLONE_SETTLS | SIGCHLD, args,
                        StoreFsBase, const_cast<uint64_t*>(&shared_->value));
  ASSERT_GT(pid, 0) << strerror(-pid);
  EXPECT_EQ(Reap(pid), 0);
  EXPECT_EQ(shared_->value, args.tls);
}

TEST_P(Clone4Test, TlsThatCannotBe) {
  if (abi().word == 4) {
    return;  // every 32-bit value is a valid address
  }
  Args args;
  args.tls = 1ull << 62;
  WantError(Call(CLONE_SETTLS | SIGCHLD, args), EPERM);
  WantFork(Call(SIGCHLD, args));  // tls is ignored without the flag
}

// EAX has the number, and the instruction selects the ABI.
TEST_P(Clone4Test, Number) {
  WantFork(Invoke(abi().number | 0xdead000000000000, abi().int80, 0, SIGCHLD, 0,
                  0));
  for (const auto& [number, int80] : std::vector<std::pair<uint64_t, bool>>{
           {546, false},
           {323 | kX32Bit, false},
           {359, false},
           {359 | kX32Bit, true},
           {0x86000000 + 359, false},
       }) {
    SCOPED_TRACE(number);
    WantError(Invoke(number, int80, 0, SIGCHLD, 0, 0), ENOSYS);
  }
}

#endif  // defined(__x86_64__)

INSTANTIATE_TEST_SUITE_P(AllAbis, Clone4Test, ::testing::ValuesIn(kAbis),
                         [](const ::testing::TestParamInfo<Abi>& info) {
                           return std::string(info.param.name);
                         });

}  // namespace

}  // namespace testing
}  // namespace gvisor
