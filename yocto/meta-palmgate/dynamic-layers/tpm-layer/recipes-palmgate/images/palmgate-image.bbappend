IMAGE_INSTALL:append = " tpm2-tools"
