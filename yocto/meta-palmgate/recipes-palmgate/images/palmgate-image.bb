SUMMARY = "Image of a store's box: a read-only root and a partition for its state"
DESCRIPTION = "systemd, the gateway and its command on a root that is never written, a partition of its own for the state, and nobody who can log in."
SECTION = "images"
LICENSE = "Apache-2.0"

inherit core-image

# No empty-root-password, no ssh: the machine's own settings decide who may log in.
IMAGE_FEATURES += "read-only-rootfs"
IMAGE_INSTALL = " \
    packagegroup-core-boot \
    palmgate \
    palmgate-box \
    palmgate-cli \
    systemd-analyze \
"
IMAGE_FSTYPES = "wic.zst wic.bmap"
WKS_FILE ?= "palmgate.wks"
# Partitions are mounted by units that know their names.
WIC_CREATE_EXTRA_ARGS = "--no-fstab-update"
