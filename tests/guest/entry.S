/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start of the test guest: multiboot header, the way from 32-bit protected mode to 64-bit code in the upper half of
 * the address space, and the entries that a kernel writes in assembly: system calls, exceptions, the switch
 * of stacks. functions.S has the functions with known counts, guest.c says who is called how often.
 *
 * Sources: Multiboot Specification 0.6.96 (header with addresses, flag 16); Intel SDM volume 3, 4.5 (4-level
 * paging), 5.8.8 (SYSCALL), 6.14 (exceptions in 64-bit mode), 7.7 (64-bit TSS).
 */
#define OFFSET 0xffffffff80000000
#define PHYS(x) ((x) - OFFSET)

#define KERNEL_CS 0x08
#define KERNEL_DS 0x10
#define USER_DS 0x23
#define USER_CS 0x2b
#define TSS_SEL 0x30

	.section .head, "ax"
	.code32
	.balign 4
multiboot_header:
	.long 0x1badb002
	.long 0x00010000		/* the addresses below are used, not those of the ELF file */
	.long -(0x1badb002 + 0x00010000)
	.long PHYS(multiboot_header)
	.long PHYS(_text)
	.long PHYS(_edata)
	.long PHYS(_end)
	.long PHYS(startup_32)

	.globl startup_32
	.type startup_32, @function
startup_32:
	cli
	cld
	/* 1 GiB in pages of 2 MiB, at 0 (also for user mode) and at OFFSET. */
	movl $PHYS(pgd), %edi
	movl $PHYS(pud_low) + 7, (%edi)
	movl $PHYS(pud_high) + 3, 511 * 8(%edi)
	movl $PHYS(pmd) + 7, PHYS(pud_low)
	movl $PHYS(pmd) + 7, PHYS(pud_high) + 510 * 8
	movl $PHYS(pmd), %edi
	movl $0x87, %eax
	movl $512, %ecx
1:	movl %eax, (%edi)
	addl $0x200000, %eax
	addl $8, %edi
	decl %ecx
	jnz 1b

	movl %cr4, %eax
	orl $0x20, %eax			/* PAE */
	movl %eax, %cr4
	movl $PHYS(pgd), %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x101, %eax		/* long mode, SYSCALL */
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax
	movl %eax, %cr0
	lgdt PHYS(gdt_low)
	ljmp $KERNEL_CS, $PHYS(startup_64_low)
	.size startup_32, . - startup_32

	.code64
startup_64_low:
	movq $startup_64, %rax
	jmp *%rax

	.text
	.globl startup_64
	.type startup_64, @function
startup_64:
	lgdt gdt_high
	movl $KERNEL_DS, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	movq $stack_a + 16384, %rsp
	xorl %ebp, %ebp

	/* The task state segment: one stack for interrupts from user mode, one for vector 0x81. */
	movq $stack_c + 16384, %rax
	movq %rax, tss + 4
	movq $stack_ist + 16384, %rax
	movq %rax, tss + 36
	movq $tss, %rax
	movw %ax, gdt_tss + 2
	shrq $16, %rax
	movb %al, gdt_tss + 4
	movb %ah, gdt_tss + 7
	shrq $16, %rax
	movl %eax, gdt_tss + 8
	movl $TSS_SEL, %eax
	ltr %ax

	movl $0xc0000081, %ecx		/* STAR: selectors */
	xorl %eax, %eax
	movl $((USER_DS - 8) << 16) + KERNEL_CS, %edx
	wrmsr
	movl $0xc0000082, %ecx		/* LSTAR: entry */
	movq $entry_SYSCALL_64, %rax
	movq %rax, %rdx
	shrq $32, %rdx
	wrmsr
	movl $0xc0000084, %ecx		/* SFMASK: interrupts off, direction up */
	movl $0x600, %eax
	xorl %edx, %edx
	wrmsr

	lidt idt_high
	call guest_main
	call guest_exit
	ud2
	.size startup_64, . - startup_64

/*
 * Ends the run: by the debug exit device when there is one at 0xf4 (it reads as 0, no device reads as all ones),
 * else by a triple fault, which -no-reboot turns into an exit.
 */
	.globl guest_exit
	.type guest_exit, @function
guest_exit:
	inb $0xf4, %al
	testb %al, %al
	jnz 2f
	xorl %eax, %eax
	outb %al, $0xf4
1:	hlt
	jmp 1b
2:	lidt idt_none
	ud2
	.size guest_exit, . - guest_exit

/* void set_gate(unsigned vector, void *entry, unsigned ist) */
	.globl set_gate
	.type set_gate, @function
set_gate:
	movl %edi, %edi
	shlq $4, %rdi
	addq $idt, %rdi
	movq %rsi, %rax
	movw %ax, (%rdi)
	movw $KERNEL_CS, 2(%rdi)
	movb %dl, 4(%rdi)
	movb $0x8e, 5(%rdi)		/* present, interrupt gate */
	shrq $16, %rax
	movw %ax, 6(%rdi)
	shrq $16, %rax
	movl %eax, 8(%rdi)
	movl $0, 12(%rdi)
	ret
	.size set_gate, . - set_gate

/*
 * The switch of stacks, as Linux has it: struct thread *__switch_to_asm(struct thread *prev, struct thread *next).
 * A new thread's stack holds six zeros and the address where it begins.
 */
#define THREAD_SP 64
	.globl __switch_to_asm
	.type __switch_to_asm, @function
__switch_to_asm:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, THREAD_SP(%rdi)
	movq THREAD_SP(%rsi), %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	jmp __switch_to
	.size __switch_to_asm, . - __switch_to_asm

/* Where a new kernel thread begins: __switch_to returns to it. */
	.globl ret_from_fork
	.type ret_from_fork, @function
ret_from_fork:
	call thread_b
	ud2
	.size ret_from_fork, . - ret_from_fork

/* Where the thread with a user side begins: it goes to user mode at once. */
	.globl ret_from_fork_user
	.type ret_from_fork_user, @function
ret_from_fork_user:
	pushq $USER_DS
	pushq $PHYS(user_stack + 4096)
	pushq $0x2
	pushq $USER_CS
	pushq $PHYS(user_main)
	iretq
	.size ret_from_fork_user, . - ret_from_fork_user

/* The number is in rax. Runs on the top of the thread's own kernel stack. */
	.globl entry_SYSCALL_64
	.type entry_SYSCALL_64, @function
entry_SYSCALL_64:
	swapgs
	movq %rsp, user_rsp
	movq $stack_c + 16384, %rsp
	pushq %rcx
	pushq %r11
	movq %rax, %rdi
	call do_syscall_64
	popq %r11
	popq %rcx
	movq user_rsp, %rsp
	swapgs
	sysretq
	.size entry_SYSCALL_64, . - entry_SYSCALL_64

/* 9 system calls with number 39 from two levels of functions, then number 60, which does not come back. */
	.globl user_main
	.type user_main, @function
user_main:
	movl $9, %ebx
1:	call user_work
	decl %ebx
	jnz 1b
	movl $60, %eax
	syscall
	ud2
	.size user_main, . - user_main

	.type user_work, @function
user_work:
	movl $39, %eax
	syscall
	ret
	.size user_work, . - user_work

/* Vector 0x80: 9 registers saved as a compiled handler needs it, a call, iretq. 20 instructions. */
	.macro SAVE
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	.endm
	.macro RESTORE
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rax
	.endm

	.globl soft_entry
	.type soft_entry, @function
soft_entry:
	SAVE
	call soft_handler
	RESTORE
	iretq
	.size soft_entry, . - soft_entry

/* Vector 0x81: the same, but the processor changes to a stack of its own. */
	.globl ist_entry
	.type ist_entry, @function
ist_entry:
	SAVE
	call ist_handler
	RESTORE
	iretq
	.size ist_entry, . - ist_entry

/* Vector 6: skips the two bytes of ud2. */
	.globl ud_entry
	.type ud_entry, @function
ud_entry:
	SAVE
	call ud_handler
	RESTORE
	addq $2, (%rsp)
	iretq
	.size ud_entry, . - ud_entry

/* Vector 14, with an error code: skips the three bytes of the load. */
	.globl pf_entry
	.type pf_entry, @function
pf_entry:
	SAVE
	call pf_handler
	RESTORE
	addq $8, %rsp
	addq $3, (%rsp)
	iretq
	.size pf_entry, . - pf_entry

	.data
	.balign 16
gdt:
	.quad 0
	.quad 0x00af9b000000ffff	/* 0x08 kernel code, 64 bit */
	.quad 0x00cf93000000ffff	/* 0x10 kernel data */
	.quad 0				/* 0x18 */
	.quad 0x00cff3000000ffff	/* 0x20 user data */
	.quad 0x00affb000000ffff	/* 0x28 user code, 64 bit */
gdt_tss:
	.quad 0x0000890000000067	/* 0x30 task state segment, base filled in */
	.quad 0
gdt_end:
	.balign 4
gdt_low:
	.word gdt_end - gdt - 1
	.long PHYS(gdt)
	.balign 8
gdt_high:
	.word gdt_end - gdt - 1
	.quad gdt
	.balign 8
idt_high:
	.word 256 * 16 - 1
	.quad idt
	.balign 8
idt_none:
	.word 0
	.quad 0

	.bss
	.balign 4096
pgd:	.skip 4096
pud_low: .skip 4096
pud_high: .skip 4096
pmd:	.skip 4096
idt:	.skip 4096
user_stack: .skip 4096
tss:	.skip 104
	.balign 8
user_rsp: .skip 8
	/* As large as kernel stacks of Linux are; guest.lds aligns them to their size. */
	.section .stacks, "aw", @nobits
	.globl stack_a, stack_b, stack_c
stack_a: .skip 16384
stack_b: .skip 16384
stack_c: .skip 16384
stack_ist: .skip 16384

	.section .note.GNU-stack, "", @progbits
