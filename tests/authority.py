"""A test authority, which signs the certificates that manifests are signed with."""

import subprocess
from pathlib import Path

LEAF = """basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=emailProtection
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def make_authority(folder: Path) -> None:
    """A root, and certificates of an EC and an Ed25519 key that it signed."""
    (folder / "leaf.txt").write_text(LEAF)
    new_ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    root = ("-subj", "/O=Test/CN=Root", "-addext", "basicConstraints=critical,CA:TRUE")
    use = ("-addext", "keyUsage=critical,keyCertSign")
    openssl(folder, "req", "-x509", *new_ec, "-keyout", "ca.key", "-out", "ca.pem", *root, *use)
    for name, kind in (("ec", new_ec), ("ed", ("-newkey", "ed25519", "-nodes"))):
        request = ("-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/O=Maker/CN={name}")
        openssl(folder, "req", *kind, *request)
        by = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "leaf.txt")
        openssl(folder, "x509", "-req", "-in", f"{name}.csr", *by, "-out", f"{name}.pem")
        chain = (folder / f"{name}.pem").read_bytes() + (folder / "ca.pem").read_bytes()
        (folder / f"{name}-chain.pem").write_bytes(chain)
