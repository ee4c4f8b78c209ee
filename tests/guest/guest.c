/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the test guest does: calls every function of functions.S a known number of times, and switches
 * between three threads. No timer, no interrupts: each run executes the same instructions.
 * expected.txt has the counts, verify.py compares them with QEMU's own log.
 */
#include <stddef.h>

/* Called as often as the source says, whatever the compiler knows about the function. */
#ifdef __clang__
#define NOIPA __attribute__((noinline, optnone))
#else
#define NOIPA __attribute__((noipa))
#endif

void guest_main(void);
void thread_b(void);
long do_syscall_64(long number);
long sys_getpid(void);
void sys_exit(void);
void a_outer(void);
void a_inner(void);
void b_outer(void);
void b_inner(void);
void schedule(void);
void switch_note(void);
int fib(int n);
void put_string(const char *s);

void set_gate(unsigned vector, void (*entry)(void), unsigned ist);
void soft_entry(void), ist_entry(void), ud_entry(void), pf_entry(void);
void ret_from_fork(void), ret_from_fork_user(void);

long leaf(long n);
void outer(void), recurse(int n), tail_a(void), tail_maybe(int n), tail_pointer(void (*f)(void));
void pointer_0(void), pointer_1(void), pointer_2(void), pointer_3(void);
void loop_to_start(int n), spin(int n), catcher(void), thunked(void);
void retpoline_call(void (*f)(void)), retpoline_target(void);
void soft_caller(void), ist_caller(void), ud_caller(void), pf_caller(void);
void put_char(int c);

/* The stack pointer is where entry.S expects it: THREAD_SP. */
struct thread {
	char other[64];
	unsigned long *sp;
};

struct thread *__switch_to_asm(struct thread *prev, struct thread *next);
struct thread *__switch_to(struct thread *prev, struct thread *next);

extern unsigned long stack_b[2048], stack_c[2048];
static struct thread a, b, c;
static struct thread *current, *next_thread;
static void (*volatile pointers[4])(void) = {pointer_0, pointer_1, pointer_2, pointer_3};

NOIPA void switch_note(void)
{
	__asm__ volatile("");
}

/* Reached by a jump from __switch_to_asm, on the stack of the thread that goes on. */
NOIPA struct thread *__switch_to(struct thread *prev, struct thread *next)
{
	current = next;
	switch_note();
	return prev;
}

NOIPA void schedule(void)
{
	struct thread *prev = current;

	__switch_to_asm(prev, next_thread);
	__asm__ volatile("" ::: "memory");
}

/* A stack such that the first switch to it pops six zeros and returns to @start. */
NOIPA static void make_thread(struct thread *t, unsigned long *stack, void (*start)(void))
{
	unsigned long *sp = stack + 2048;

	*--sp = (unsigned long)start;
	for (int i = 0; i < 6; i++)
		*--sp = 0;
	t->sp = sp;
}

/* Thread A gives the processor away two calls deep, thread B three calls deep. */
NOIPA void a_inner(void)
{
	next_thread = &b;
	schedule();
	leaf(0);
}

NOIPA void a_outer(void)
{
	leaf(0);
	a_inner();
	leaf(0);
}

NOIPA void b_inner(void)
{
	next_thread = &a;
	schedule();
	leaf(0);
}

NOIPA void b_outer(void)
{
	leaf(0);
	b_inner();
	leaf(0);
}

/* Runs for the first time in the middle of A's first switch; is never switched to again after A's last. */
NOIPA void thread_b(void)
{
	for (;;)
		b_outer();
}

NOIPA long sys_getpid(void)
{
	return leaf(0);
}

NOIPA void sys_exit(void)
{
	next_thread = &a;
	schedule();
	__builtin_unreachable();
}

NOIPA long do_syscall_64(long number)
{
	if (number == 60)
		sys_exit();
	return sys_getpid();
}

NOIPA int fib(int n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}

NOIPA void put_string(const char *s)
{
	for (; *s; s++)
		put_char(*s);
}

void guest_main(void)
{
	set_gate(0x80, soft_entry, 0);
	set_gate(0x81, ist_entry, 1);
	set_gate(6, ud_entry, 0);
	set_gate(14, pf_entry, 0);
	put_string("bootprof-guest: start\r\n");

	for (int i = 0; i < 1000; i++)
		leaf(i);
	for (int i = 0; i < 10; i++)
		outer();
	for (int i = 0; i < 4; i++)
		recurse(20);
	for (int i = 0; i < 100; i++)
		tail_a();
	for (int i = 0; i < 50; i++)
		tail_maybe(i);
	for (int i = 0; i < 30; i++)
		tail_pointer(pointer_0);
	for (int i = 0; i < 100; i++)
		pointers[i & 3]();
	for (int i = 0; i < 10; i++)
		loop_to_start(100);
	for (int i = 0; i < 2; i++)
		spin(50000);
	for (int i = 0; i < 8; i++)
		catcher();
	for (int i = 0; i < 40; i++)
		thunked();
	for (int i = 0; i < 60; i++)
		retpoline_call(retpoline_target);
	fib(10);

	for (int i = 0; i < 30; i++)
		soft_caller();
	for (int i = 0; i < 6; i++)
		ist_caller();
	for (int i = 0; i < 5; i++)
		ud_caller();
	for (int i = 0; i < 3; i++)
		pf_caller();

	make_thread(&b, stack_b, ret_from_fork);
	make_thread(&c, stack_c, ret_from_fork_user);
	current = &a;
	for (int i = 0; i < 12; i++)
		a_outer();
	next_thread = &c;
	schedule();

	put_string("bootprof-guest: ready\r\n");
}
