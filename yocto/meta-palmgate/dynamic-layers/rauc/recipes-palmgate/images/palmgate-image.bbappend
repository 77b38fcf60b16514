# Two roots and signed updates. Each root brings its own kernel.
IMAGE_INSTALL:append = " kernel-image palmgate-slots rauc"
IMAGE_FSTYPES:append = " ext4"
WKS_FILE = "palmgate-slots.wks"
IMAGE_EFI_BOOT_FILES = "palmgate-grubenv;EFI/BOOT/grubenv"
do_image_wic[depends] += "palmgate-slots:do_deploy"
