# Firmware that tells whether a virtual CPU can do what a 64-bit kernel does
# while it starts. probe_amd64.bin is its first part; probe.go puts it into a
# 64 KiB image and adds the jump at the reset vector. It ends QEMU with exit status 85
# through isa-debug-exit at port 0x501; anything else, or silence, is a no.
#
#   as --64 -o p.o probe_amd64.S && objcopy -O binary -j .text p.o probe_amd64.bin
#
# The image appears at 0xF0000 and below 4 GiB; the code runs at 0xF0000.

        .text
        .code16
start:
        cli
        cld
        # Through the low copy, where addresses fit the descriptors below.
        ljmp    $0xf000, $(low - start)
low:
        movw    $0xf000, %ax
        movw    %ax, %ds
        lgdtl   gdtr - start
        movl    %cr0, %eax
        orl     $1, %eax
        movl    %eax, %cr0
        ljmpl   $0x08, $(0xf0000 + protected - start)

        .code32
protected:
        movw    $0x10, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %ss
        movl    $0x80000, %esp
        # Page tables of its own: 1 GiB in pages of 2 MiB, one to one.
        movl    $0x1000, %edi
        xorl    %eax, %eax
        movl    $0xc00, %ecx
        rep stosl
        movl    $0x2003, 0x1000
        movl    $0x3003, 0x2000
        movl    $0x3000, %edi
        movl    $0x83, %eax
        movl    $512, %ecx
1:      movl    %eax, (%edi)
        movl    $0, 4(%edi)
        addl    $0x200000, %eax
        addl    $8, %edi
        loop    1b
        # Long mode.
        movl    %cr4, %eax
        orl     $0x20, %eax
        movl    %eax, %cr4
        movl    $0x1000, %eax
        movl    %eax, %cr3
        movl    $0xc0000080, %ecx
        rdmsr
        orl     $0x100, %eax
        wrmsr
        movl    %cr0, %eax
        orl     $0x80010000, %eax
        movl    %eax, %cr0
        ljmpl   $0x18, $(0xf0000 + long - start)

        .code64
long:
        movq    $0x80000, %rsp
        # An IDT whose only gate is for page faults, as the decompressor of the
        # kernel has it: it maps what is missing and returns.
        movl    $0x6000, %edi
        movq    %rdi, %rbx
        xorl    %eax, %eax
        movl    $0x200, %ecx
        rep stosq
        leaq    fault(%rip), %rax
        movw    %ax, 14*16(%rbx)
        movw    $0x18, 14*16+2(%rbx)
        movw    $0x8e00, 14*16+4(%rbx)
        shrq    $16, %rax
        movw    %ax, 14*16+6(%rbx)
        shrq    $16, %rax
        movl    %eax, 14*16+8(%rbx)
        movw    $0xfff, 0x5ff0
        movq    %rbx, 0x5ff2
        lidt    0x5ff0

        # CPUID as a kernel asks it.
        xorl    %r8d, %r8d
2:      movl    %r8d, %eax
        xorl    %ecx, %ecx
        cpuid
        movl    %r8d, %eax
        orl     $0x80000000, %eax
        xorl    %ecx, %ecx
        cpuid
        incl    %r8d
        cmpl    $0x20, %r8d
        jb      2b

        # Touch each page from 1 MiB to 12 MiB, twice, with the mapping loaded anew
        # each time.
        movl    $2, %r9d
3:      movl    $0x100000, %edi
4:      movq    %rdi, (%rdi)
        addq    $4096, %rdi
        cmpq    $0xc00000, %rdi
        jb      4b
        movq    %cr3, %rax
        movq    %rax, %cr3
        movl    $0x100000, %edi
5:      cmpq    %rdi, (%rdi)
        jne     bad
        addq    $4096, %rdi
        cmpq    $0xc00000, %rdi
        jb      5b
        decl    %r9d
        jnz     3b

        # A page that is not mapped, at 1 TiB: the fault handler maps it.
        movq    $0x10000000000, %rdi
        movq    $0x1122334455667788, %rax
        movq    %rax, 0x20(%rdi)
        cmpq    %rax, 0x20(%rdi)
        jne     bad
        cmpl    $1, 0x5fe0
        jne     bad

        # Switch between two sets of page tables, as processes do.
        movl    $0x1000, %esi
        movl    $0x9000, %edi
        movl    $0x200, %ecx
        rep movsq
        movl    $2000, %r9d
6:      movl    $0x9000, %eax
        movq    %rax, %cr3
        movq    %r9, 0x200000
        movl    $0x1000, %eax
        movq    %rax, %cr3
        invlpg  0x200000
        cmpq    %r9, 0x200000
        jne     bad
        decl    %r9d
        jnz     6b

        # The interval timer has to count down.
        movb    $0x34, %al
        outb    %al, $0x43
        movb    $0xff, %al
        outb    %al, $0x40
        outb    %al, $0x40
        movl    $100000, %r9d
7:      xorl    %eax, %eax
        outb    %al, $0x43
        inb     $0x40, %al
        movb    %al, %ah
        inb     $0x40, %al
        xchgb   %al, %ah
        cmpw    $0xf000, %ax
        jb      good
        decl    %r9d
        jnz     7b
bad:
        movl    $0, %eax
        jmp     leave
good:
        movl    $0x2a, %eax
leave:
        movw    $0x501, %dx
        outl    %eax, %dx
8:      hlt
        jmp     8b

fault:
        # Expected once, for the page at 1 TiB: entry 2 of the top table.
        addq    $8, %rsp                # the error code
        incl    0x5fe0
        pushq   %rax
        movl    $0x8003, %eax           # a second table of 1 GiB entries' tables
        movq    %rax, 0x1010
        movl    $0x3003, %eax
        movq    %rax, 0x8000
        popq    %rax
        iretq

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff      # 0x08: 32-bit code
        .quad   0x00cf93000000ffff      # 0x10: data
        .quad   0x00af9b000000ffff      # 0x18: 64-bit code
gdtr:   .word   31
        .long   0xf0000 + gdt - start
