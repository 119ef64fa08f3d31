# A kernel that stands in for a guest in tests: it starts in a moment, needs no
# memory and no CPU time. It does what the last letter of its command line says:
# S, halts in silence. Any other writes a line to the serial console first. Then P
# polls the power button and switches off; R resets the machine; the rest halt.
#
#   as --32 -o s.o standin.S && objcopy -O binary -j .text s.o standin.bin

        .text
        .code32
        .set    base, 0x100000
start:
        .long   0x1badb002              # Multiboot, section 3.1: loaded at 1 MiB
        .long   0x00010000
        .long   -(0x1badb002 + 0x00010000)
        .long   base, base, 0, 0, base + entry - start
entry:
        cli
        movl    16(%ebx), %esi
3:      lodsb
        testb   %al, %al
        jnz     3b
        movb    -2(%esi), %cl
        cmpb    $'S', %cl
        je      halt
        movl    $(base + message - start), %esi
        movw    $0x3f8, %dx
1:      lodsb
        testb   %al, %al
        jz      2f
        outb    %al, %dx
        jmp     1b
2:      cmpb    $'P', %cl
        je      polite
        cmpb    $'R', %cl
        je      reset
halt:   hlt
        jmp     halt
polite: movw    $0x602, %dx             # ACPI PM1: enable the power button
        movw    $0x100, %ax
        outw    %ax, %dx
        movw    $0x600, %dx
4:      pause
        inw     %dx, %ax
        testw   $0x100, %ax
        jz      4b
        movw    $0x604, %dx             # S5
        movw    $0x2000, %ax
        outw    %ax, %dx
        jmp     halt
reset:  movw    $0xcf9, %dx
        movb    $6, %al
        outb    %al, %dx
        jmp     halt
message: .asciz "stand-in guest\r\n"
