SUMMARY = "Signed update of a store's box"
DESCRIPTION = "The root of palmgate-image as a RAUC bundle; the key that signs it stays with who builds it."
SECTION = "images"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/files/common-licenses/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

inherit bundle

RAUC_BUNDLE_COMPATIBLE = "palmgate-${MACHINE}"
RAUC_BUNDLE_VERSION = "${PV}"
RAUC_BUNDLE_FORMAT = "verity"
RAUC_BUNDLE_SLOTS = "rootfs"
RAUC_SLOT_rootfs = "palmgate-image"
RAUC_SLOT_rootfs[fstype] = "ext4"
RAUC_SLOT_rootfs[adaptive] = "block-hash-index"
