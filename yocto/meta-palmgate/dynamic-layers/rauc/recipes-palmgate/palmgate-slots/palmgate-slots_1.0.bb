SUMMARY = "What a box with two roots needs"
DESCRIPTION = "The updater's mounts, a root that is good once the gateway is ready, and the boot loader's first environment."
SECTION = "base"
LICENSE = "Apache-2.0"
LIC_FILES_CHKSUM = "file://${COREBASE}/meta/files/common-licenses/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

SRC_URI = " \
    file://boot-complete.conf \
    file://efi.mount \
    file://grubenv \
    file://var-lib-rauc.mount \
"
S = "${UNPACKDIR}"

inherit allarch deploy systemd

do_install() {
    for unit in efi var-lib-rauc; do
        install -D -m 0644 ${S}/$unit.mount ${D}${systemd_system_unitdir}/$unit.mount
    done
    install -D -m 0644 ${S}/boot-complete.conf ${D}${systemd_system_unitdir}/boot-complete.target.d/palmgate.conf
    install -d ${D}/efi ${D}${localstatedir}/lib/rauc
}

do_deploy() {
    install -m 0644 ${S}/grubenv ${DEPLOYDIR}/palmgate-grubenv
}

addtask deploy after do_install before do_build

SYSTEMD_SERVICE:${PN} = "efi.mount var-lib-rauc.mount"
FILES:${PN} += "/efi ${localstatedir}/lib/rauc ${systemd_system_unitdir}/boot-complete.target.d"
RDEPENDS:${PN} += "grub-editenv"
