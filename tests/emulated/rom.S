# The machine's ROM, in place of a BIOS and a boot loader: from reset to the kernel's 32-bit entry, with the registers as
# the kernel's boot protocol wants them. `guest.py` has put kernel and parameters where this looks for them.
    .set parameters, 0x10000
    .set kernel, 0x100000

    .globl base
    .code32
base:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $parameters, %esi
    xor %ebp, %ebp
    xor %edi, %edi
    xor %ebx, %ebx
    mov $kernel, %eax
    jmp *%eax

    .align 8
table: # 0x10: code, 0x18: memory, both all of it
    .quad 0, 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
descriptor:
    .short . - table - 1
    .long table

    .code16
real_mode:
    lgdtl %cs:(0xf000 + descriptor - base)
    mov $0x11, %eax
    mov %eax, %cr0
    ljmpl $0x10, $base

    .org 0xff0 # where the processor begins, sixteen bytes before the end
    jmp real_mode
    .org 0x1000 # a page, the least that Bochs maps
