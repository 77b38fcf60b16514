# The layer of TPM software is there.
PACKAGECONFIG:append = " tpm"

do_install:append() {
    for drop_in in credential tpm; do
        install -D -m 0644 ${S}/systemd/palmgated.service.d/$drop_in.conf \
            ${D}${systemd_system_unitdir}/palmgated.service.d/$drop_in.conf
    done
}
FILES:${PN}:append = " ${systemd_system_unitdir}/palmgated.service.d"
