"""Names and addresses of servers, as users write them and as certificates need them."""

from pathlib import Path

import pytest
from cryptography import x509

from fedaigc.deployment.hosts import host_and_port, host_name, host_of
from fedaigc.deployment.server.keys import SERVER_CERTIFICATE, make_server_keys
from fedaigc.deployment.server.server import start_server
from fedaigc.errors import UserError


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("server.example", "server.example"),
        (" Server.Example. ", "server.example"),
        ("my_server", "my_server"),
        ("müller.example", "xn--mller-kva.example"),
        ("straße.example", "xn--strae-oqa.example"),
        ("例え.example", "xn--r8jz45g.example"),
        ("192.0.2.7", "192.0.2.7"),
        ("１９２.0.2.7", "192.0.2.7"),
        ("2001:DB8::7", "2001:db8::7"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_a_host_is_written_as_certificates_have_it(given: str, read: str) -> None:
    assert host_name(given, "--host") == read
    assert host_name(read, "--host") == read


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("name:9443", "has a port: give name alone"),
        ("[::1]:9443", r"has a port: give \[::1\] alone"),
        ("https://server.example", "is a URL"),
        ("192.0.2.0/24", "is a network"),
        ("192.0.2.256", "is no host"),
        ("010.0.0.1", "is no host"),
        ("a b", "is no host"),
        ("-a.example", "is no host"),
        ("a..example", "is no host"),
        ("[server.example]", "is no host"),
        ("x" * 64, "is no host"),
        ("ü" * 80, "is no host"),
        ("*.example", "is no host"),
        ("anna@server.example", "is no host"),
        ("::g", "is no host"),
    ],
)
def test_what_is_no_host_is_refused(given: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        host_name(given, "--host")


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("server.example:9443", "server.example:9443"),
        ("Müller.example:1", "xn--mller-kva.example:1"),
        ("192.0.2.7:65535", "192.0.2.7:65535"),
        ("[2001:DB8::7]:9443", "[2001:db8::7]:9443"),
    ],
)
def test_a_server_is_a_host_and_a_port(given: str, read: str) -> None:
    assert host_and_port(given, "--server") == read
    assert f"{host_of(read)}".strip("[]") in read


@pytest.mark.parametrize(
    "given",
    ["2001:db8::7:9443", "server.example", "server.example:0", "server.example:65536", ":1", "[::1]", "a:b"],
)
def test_other_servers_are_refused(given: str) -> None:
    with pytest.raises(UserError, match="expected"):
        host_and_port(given, "--server")


def test_keys_hold_the_hosts_in_their_form(tmp_path: Path) -> None:
    make_server_keys(tmp_path, ["müller.example", "[::1]", "*.example.org", "Müller.Example", "127.0.0.1"])
    certificate = x509.load_pem_x509_certificate((tmp_path / SERVER_CERTIFICATE).read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["xn--mller-kva.example", "*.example.org", "localhost"]
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["::1", "127.0.0.1"]


def test_no_keys_are_made_and_nothing_is_started_for_what_is_no_host(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--host 'https://a'"):
        make_server_keys(tmp_path / "keys", ["https://a"])
    assert not (tmp_path / "keys").exists()
    with pytest.raises(UserError, match="--host 'a:9443' has a port"):
        start_server(tmp_path, "a:9443", 9443, insecure=True)
