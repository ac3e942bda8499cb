package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"

	"github.com/refersam/refersam"
	"golang.org/x/net/idna"
)

// refusal is why an address may not be reached. It names no address but the
// client's own.
type refusal struct{ why string }

func (r *refusal) Error() string { return "the address is refused: " + r.why }

func refused(message string) error { return refersam.Errorf(refersam.CodeFetchRefused, "%s", message) }

// refuse converts a refusal to a *refersam.Error.
func refuse(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return &refersam.Error{Code: refersam.CodeFetchRefused, Message: "This service may not reach the address: " + r.why + ".", Err: err}
	}
	return err
}

// host is an entry of a list of hosts.
type host struct {
	name string // in its canonical form; "" for any
	port string
	// below makes the entry match all names below name.
	below bool
}

// hosts is a list of hosts that may be reached.
type hosts []host

const httpsPort = "443"

func newHosts(entries []string) (hosts, error) {
	var list hosts
	for _, entry := range entries {
		if entry == "*" {
			list = append(list, host{port: httpsPort})
			continue
		}
		h := host{port: httpsPort}
		name, port, err := net.SplitHostPort(entry)
		if err != nil {
			name = strings.Trim(entry, "[]")
		} else {
			h.port = port
		}
		if n, err := strconv.ParseUint(h.port, 10, 16); err != nil || n == 0 {
			return nil, badHost(entry)
		}
		name, h.below = strings.CutPrefix(name, "*.")
		if h.name, err = canonical(name); err != nil {
			return nil, badHost(entry)
		}
		list = append(list, h)
	}
	return list, nil
}

func badHost(entry string) error {
	return fmt.Errorf("%q is not of the form example.com, *.example.com or example.com:8443", entry)
}

// names maps a name to ASCII and refuses names that no resolver should get.
var names = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(true), idna.VerifyDNSLength(true))

// canonical returns a host in the form that is compared: in ASCII and lower case,
// without a dot at the end; an IP address as netip writes it.
func canonical(name string) (string, error) {
	if ip, err := netip.ParseAddr(name); err == nil {
		if ip.Zone() != "" {
			return "", &refusal{"an address with a zone belongs to this machine's networks"}
		}
		return ip.String(), nil
	}
	name, err := names.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil || name == "" {
		return "", &refusal{"its host is not a valid name"}
	}
	return strings.ToLower(name), nil
}

// maxURL is how many bytes an address may have.
const maxURL = 2048

// check returns a refusal unless an address is https and its host is on the list.
func (list hosts) check(address string) error {
	if len(address) > maxURL {
		return &refusal{fmt.Sprintf("it is longer than %d bytes", maxURL)}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return &refusal{"it cannot be read"}
	case u.Scheme != "https":
		return &refusal{"it does not begin with https"}
	case u.User != nil:
		return &refusal{"it contains a user name"}
	case u.Opaque != "" || u.Hostname() == "" || strings.ContainsAny(address, "\\\t\r\n "):
		return &refusal{"it cannot be read"}
	}
	name, port, err := target(u)
	if err != nil {
		return err
	}
	for _, h := range list {
		if h.allows(name, port) {
			return nil
		}
	}
	return &refusal{"its host is not on the list"}
}

// target returns the host and port of an address, in the form that hosts compares.
func target(u *url.URL) (name, port string, err error) {
	if port = u.Port(); port == "" {
		port = httpsPort
	}
	name, err = canonical(u.Hostname())
	return name, port, err
}

// names reports whether the list contains the host of an address or a domain above
// it.
func (list hosts) names(u *url.URL) bool {
	name, port, err := target(u)
	if err != nil {
		return false
	}
	for _, h := range list {
		if h.name != "" && h.allows(name, port) {
			return true
		}
	}
	return false
}

func (h *host) allows(name, port string) bool {
	switch {
	case h.port != port:
		return false
	case h.name == "":
		return true
	case h.below:
		return strings.HasSuffix(name, "."+h.name)
	default:
		return name == h.name
	}
}

// special are the networks of IPv4 that are not for everybody (IANA's registry of
// special-purpose addresses), and a host of the Azure cloud that is public only by
// its number.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24",
	"203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
)

// unicast6 is the public part of IPv6. Addresses in it that embed others (NAT64,
// mapped addresses, tunnels) or are reserved for examples are not public.
var (
	unicast6 = netip.MustParsePrefix("2000::/3")
	special6 = prefixes("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

// addresses are the IP addresses that may be dialled: public ones, and the
// addresses of these networks.
type addresses []netip.Prefix

func newAddresses(networks []string) (addresses, error) {
	var list addresses
	for _, text := range networks {
		network, err := netip.ParsePrefix(text)
		if err != nil || network.Addr().Is4In6() { // addresses are compared as IPv4 addresses
			return nil, fmt.Errorf("%q is not of the form 10.1.0.0/16", text)
		}
		list = append(list, network.Masked())
	}
	return list, nil
}

// allow reports whether an address may be dialled.
func (a addresses) allow(ip netip.Addr) bool {
	if ip.Zone() != "" {
		return false
	}
	ip = ip.Unmap() // the system also treats a mapped address as IPv4
	for _, network := range a {
		if network.Contains(ip) {
			return true
		}
	}
	reserved := special
	if ip.Is6() {
		if !unicast6.Contains(ip) {
			return false
		}
		reserved = special6
	}
	for _, network := range reserved {
		if network.Contains(ip) {
			return false
		}
	}
	return true
}

// control checks an address when it is dialled, because only then is it certain
// which address a name resolves to.
func (a addresses) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !strings.HasPrefix(network, "tcp") || !a.allow(at.Addr()) {
		return &refusal{"its host is not on a public network"}
	}
	return nil
}

// failure describes an error of the connection, without an address that a name
// resolved to.
func failure(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return refuse(r)
	}
	return &refersam.Error{Code: refersam.CodeFetchFailed, Message: "The picture could not be fetched: " + reason(err) + ".", Err: err}
}

// plain returns err in words that clients may see.
func plain(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	var domainErr *refersam.Error
	if errors.As(err, &domainErr) {
		return errors.New(domainErr.Message)
	}
	return errors.New(reason(err))
}

func reason(err error) string {
	var (
		dns         *net.DNSError
		certificate *tls.CertificateVerificationError
		op          net.Error
	)
	switch {
	case errors.As(err, &dns):
		return "its host has no address"
	case errors.As(err, &certificate):
		return "its certificate is not valid"
	case errors.Is(err, errRedirects):
		return errRedirects.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout():
		return "it took too long"
	default:
		return "the connection failed"
	}
}
