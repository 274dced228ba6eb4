package proxy

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"mlflow-emissions-proxy/meter"
)

// connection is a client's TCP connection. Who is at its other end is looked up once, and only if a run is opened
// over it or metrics are logged: the look-up costs as much as several forwarded requests.
type connection struct {
	local, remote netip.AddrPort
	once          sync.Once
	process       meter.Process
	err           error
	joined        atomic.Pointer[run] // the run that metrics came for last
}

type connectionKey struct{}

// connContext is http.Server.ConnContext.
func connContext(ctx context.Context, c net.Conn) context.Context {
	conn := &connection{}
	if a, err := netip.ParseAddrPort(c.LocalAddr().String()); err == nil {
		conn.local = a
	}
	if a, err := netip.ParseAddrPort(c.RemoteAddr().String()); err == nil {
		conn.remote = a
	}
	return context.WithValue(ctx, connectionKey{}, conn)
}

func connectionOf(r *http.Request) *connection {
	if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
		return c
	}
	return &connection{}
}

// peer returns the process at the other end; it blocks for about a millisecond the first time.
func (c *connection) peer(m *meter.Meter) (meter.Process, error) {
	c.once.Do(func() { c.process, c.err = m.Peer(c.local, c.remote) })
	return c.process, c.err
}

// logsTo returns the run that this connection's process has joined, if a request is about it again: clients log
// thousands of metrics to the same run, and only the first one needs to be looked at closely. That the run's id stands
// somewhere in the body says nothing: anybody may write it there.
func (c *connection) logsTo(body []byte) *run {
	r := c.joined.Load()
	if r == nil || r.over.Load() {
		return nil
	}
	if namesFirst(body, r.id) {
		return r
	}
	const short = 1 << 10 // a single metric
	if len(body) <= short && bytes.Contains(body, []byte(r.id)) {
		if m, err := decode(body); err == nil && runID(m) == r.id {
			return r
		}
	}
	return nil
}

// namesFirst says whether a body begins with the run's id, as a batch of MLflow's client does.
func namesFirst(body []byte, id string) bool {
	rest := bytes.TrimLeft(body, " {\n")
	for _, part := range []string{`"run_id"`, ":", `"` + id + `"`} {
		var ok bool
		if rest, ok = bytes.CutPrefix(bytes.TrimLeft(rest, " "), []byte(part)); !ok {
			return false
		}
	}
	return true
}

// LocalAddresses returns loopback and this host's own addresses: the clients whose runs are on this machine, unless
// --local-clients says otherwise.
func LocalAddresses() []netip.Prefix {
	local := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return local
	}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				ip = ip.Unmap()
				local = append(local, netip.PrefixFrom(ip, ip.BitLen()))
			}
		}
	}
	return local
}

// isLocal says whether a client's address is one of this machine.
func (p *Proxy) isLocal(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	for _, prefix := range p.cfg.LocalClients {
		if prefix.Contains(a) {
			return true
		}
	}
	return false
}
