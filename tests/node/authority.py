"""The certificates and keys of a cluster, made by openssl: an authority, the API server's certificate, the key of tokens."""
import os
import subprocess


def _openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def make_certificates(folder, addresses):
    """ca.crt, ca.key, server.crt, server.key, tokens.key, tokens.pub"""
    def at(name):
        return os.path.join(folder, name)

    os.makedirs(folder, exist_ok=True)
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    _openssl("req", "-x509", *curve, "-days", "3", "-subj", "/CN=node test authority", "-keyout", at("ca.key"), "-out", at("ca.crt"),
             "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    names = ",".join(["DNS:kubernetes", "DNS:kubernetes.default.svc", "DNS:localhost"] + [f"IP:{address}" for address in addresses])
    _openssl("req", "-x509", *curve, "-days", "3", "-subj", "/CN=kube-apiserver", "-CA", at("ca.crt"), "-CAkey", at("ca.key"),
             "-addext", f"subjectAltName={names}", "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", at("server.key"), "-out", at("server.crt"))
    _openssl("genrsa", "-out", at("tokens.key"), "2048")
    _openssl("rsa", "-in", at("tokens.key"), "-pubout", "-out", at("tokens.pub"))
