/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Functions whose instructions can be counted by reading them. The comment before each says how many
 * instructions one call executes itself; expected.txt has the sums.
 */
	.text

	.macro FUNC name
	.balign 16
	.globl \name
	.type \name, @function
\name:
	.endm
	.macro END name
	.size \name, . - \name
	.endm

/* 2 */
FUNC leaf
	leaq 1(%rdi), %rax
	ret
END leaf

/* Nested: outer calls middle 5 times, middle calls inner 3 times. outer 3 + 5 * 3 + 2 = 20 */
FUNC outer
	pushq %rbx
	movl $5, %ebx
	nop
1:	call middle
	decl %ebx
	jnz 1b
	popq %rbx
	ret
END outer

/* 2 + 3 * 3 + 2 = 13 */
FUNC middle
	pushq %r12
	movl $3, %r12d
1:	call inner
	decl %r12d
	jnz 1b
	popq %r12
	ret
END middle

/* 3 */
FUNC inner
	nop
	nop
	ret
END inner

/* recurse(n) is entered n + 1 times. n > 0: 5, n == 0: 3 */
FUNC recurse
	testl %edi, %edi
	jz 1f
	decl %edi
	call recurse
1:	ret
END recurse

/* Tail calls: each jumps to the next, only the last returns. 2, 2, 1 */
FUNC tail_a
	nop
	jmp tail_b
END tail_a
FUNC tail_b
	nop
	jmp tail_c
END tail_b
FUNC tail_c
	ret
END tail_c

/* A tail call by a conditional jump, taken when the argument is odd. taken 2, not taken 3 */
FUNC tail_maybe
	testb $1, %dil
	jnz tail_odd
	ret
END tail_maybe
/* 2 */
FUNC tail_odd
	nop
	ret
END tail_odd

/* A tail call through a register: void tail_pointer(void (*f)(void)). 1 */
FUNC tail_pointer
	jmp *%rdi
END tail_pointer

/* Called through pointers. 1, 2, 3, 4 */
FUNC pointer_0
	ret
END pointer_0
FUNC pointer_1
	nop
	ret
END pointer_1
FUNC pointer_2
	nop
	nop
	ret
END pointer_2
FUNC pointer_3
	nop
	nop
	nop
	ret
END pointer_3

/* A function whose loop jumps back to its first instruction: one entry a call. argument n: 2 * n + 1 */
FUNC loop_to_start
	decl %edi
	jnz loop_to_start
	ret
END loop_to_start

/* The loop of exactly known length. argument n: 2 + 2 * n */
FUNC spin
	movl %edi, %ecx
1:	decl %ecx
	jnz 1b
	ret
END spin

/*
 * Unwinding without returning: catcher remembers its stack, calls thrower_outer, which calls thrower_inner,
 * which goes straight back to 1f in catcher, which calls leaf and returns.
 * catcher 5 + 4 = 9, thrower_outer 2, thrower_inner 3
 */
FUNC catcher
	pushq %rbx
	movq %rsp, saved_rsp
	movq $1f, saved_rip
	xorl %edi, %edi
	call thrower_outer
	ud2
1:	call leaf
	nop
	popq %rbx
	ret
END catcher
FUNC thrower_outer
	pushq %r12
	call thrower_inner
	ud2
END thrower_outer
FUNC thrower_inner
	pushq %r13
	movq saved_rsp, %rsp
	jmp *saved_rip
END thrower_inner

/* Returns by a jump to a shared return, as kernels with return thunks do. 2 and 1 */
FUNC thunked
	nop
	jmp __x86_return_thunk
END thunked
FUNC __x86_return_thunk
	ret
END __x86_return_thunk

/*
 * A call through a retpoline: the target is entered by a return. void retpoline_call(void (*f)(void)).
 * retpoline_call 4, the thunk 3, retpoline_target 2
 */
FUNC retpoline_call
	movq %rdi, %rax
	call __x86_indirect_thunk_rax
	nop
	ret
END retpoline_call
FUNC __x86_indirect_thunk_rax
	call 2f
1:	pause
	jmp 1b
2:	movq %rax, (%rsp)
	ret
END __x86_indirect_thunk_rax
FUNC retpoline_target
	nop
	ret
END retpoline_target

/* Interrupted: 2, the int included */
FUNC soft_caller
	int $0x80
	ret
END soft_caller
FUNC ist_caller
	int $0x81
	ret
END ist_caller

/* Faulting. 2, the instruction that faults not included */
FUNC ud_caller
	nop
	ud2
	ret
END ud_caller
/* The load (three bytes) faults: there is nothing at that address. */
FUNC pf_caller
	movabsq $0xffff900000000000, %rax
	movq (%rax), %rcx
	ret
END pf_caller

/* What the handlers call. 1, 2, 3, 1 */
FUNC soft_handler
	ret
END soft_handler
FUNC ist_handler
	nop
	ret
END ist_handler
FUNC ud_handler
	nop
	nop
	ret
END ud_handler
FUNC pf_handler
	ret
END pf_handler

/* One byte to the serial port. 4 */
FUNC put_char
	movl $0x3f8, %edx
	movl %edi, %eax
	outb %al, %dx
	ret
END put_char

	.bss
	.balign 8
saved_rsp: .skip 8
saved_rip: .skip 8

	.section .note.GNU-stack, "", @progbits
