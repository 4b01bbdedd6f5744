"""A proxy's certificate in whatever form it comes."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi
import pytest

from failover.demo.account import BadSettings
from failover.demo.certificates import trusting
from tests.servers import make_certificate


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its private key, both PEM."""
    return make_certificate(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def _authorities(bundle: str | bool) -> set[bytes]:
    assert isinstance(bundle, str)
    return set(ssl.create_default_context(cafile=bundle).get_ca_certs(binary_form=True))


def _der(file: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(file.read_text().strip())


def test_without_a_file_the_public_authorities_are_trusted(temporary: Path) -> None:
    with trusting(None) as verify:
        assert verify is True
    assert not list(temporary.iterdir())


def test_pem_der_and_what_editors_make_of_them(made: tuple[Path, Path], temporary: Path, tmp_path: Path) -> None:
    pem = made[0].read_bytes()
    forms = {
        "pem": pem,
        "der": _der(made[0]),
        "crlf": pem.replace(b"\n", b"\r\n"),
        "bom": b"\xef\xbb\xbf" + pem,
        "no line end": pem.strip(),
        "comments": "Subject: Zürich, 中文\n".encode() + pem + b"\xff\xfe trailing",
        "twice": pem + b"\n" + pem,
    }
    public = _authorities(certifi.where())
    for name, data in forms.items():
        file = tmp_path / name
        file.write_bytes(data)
        with trusting(file) as verify:
            assert _authorities(verify) == public | {_der(made[0])}, name
    assert not list(temporary.iterdir())


def test_a_private_key_beside_it_goes_nowhere(made: tuple[Path, Path], temporary: Path, tmp_path: Path) -> None:
    file = tmp_path / "both.pem"
    file.write_bytes(made[1].read_bytes() + made[0].read_bytes())
    with trusting(file) as verify:
        assert isinstance(verify, str)
        assert "PRIVATE KEY" not in Path(verify).read_text()
        assert _der(made[0]) in _authorities(verify)


def test_the_bundle_is_removed_whatever_happens(made: tuple[Path, Path], temporary: Path) -> None:
    with pytest.raises(KeyboardInterrupt), trusting(made[0]) as verify:
        raise KeyboardInterrupt
    assert isinstance(verify, str)
    assert Path(verify).parent == temporary
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"not a certificate",
        b"\x30\x82\x01\x00 begins like DER",
        b"-----BEGIN CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n",
        b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    ],
)
def test_garbage(tmp_path: Path, temporary: Path, data: bytes) -> None:
    file = tmp_path / "garbage"
    file.write_bytes(data)
    with pytest.raises(BadSettings, match="neither a PEM nor a DER certificate"), trusting(file):
        pass
    assert not list(temporary.iterdir())


def test_a_good_one_and_garbage(made: tuple[Path, Path], tmp_path: Path, temporary: Path) -> None:
    file = tmp_path / "half"
    bad = b"-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n"
    for data in (made[0].read_bytes() + bad, bad + made[0].read_bytes(), _der(made[0])[:-10], made[1].read_bytes()):
        file.write_bytes(data)
        with pytest.raises(BadSettings, match="neither"), trusting(file):
            pass


def test_no_file_and_a_folder(tmp_path: Path, temporary: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(BadSettings, match="cannot be read") as caught, trusting(path):
            pass
        assert "\n" not in str(caught.value)


def test_no_room_for_the_bundle(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(BadSettings, match="temporary file"), trusting(made[0]):
        pass
