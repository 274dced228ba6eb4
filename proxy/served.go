package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v3"

	"mlflow-emissions-proxy/meter"
)

// look finds the scoring server's process, and begins to meter it for the run that its model came from.
func (s *Serving) look() {
	server, err := s.find()
	s.mu.Lock()
	same := err == nil && server == s.server
	s.mu.Unlock()
	if same {
		return
	}
	s.harvest() // for the one that was there before
	s.mu.Lock()
	if s.session != nil {
		s.session.Close()
	}
	s.server, s.session = meter.Process{}, nil
	s.mu.Unlock()
	if err != nil {
		s.complain("no scoring server found; waiting for it, and forwarding meanwhile", "url", s.cfg.URL.Redacted(), "error", err)
		return
	}
	run := s.cfg.Run
	if run == "" {
		if run, err = s.proxy.modelsRun(server); err != nil {
			s.mu.Lock()
			s.server = server
			s.mu.Unlock()
			s.complain("predictions are not metered: cannot tell which run the model came from; give it by --serving-run RUN_ID", "error", err)
			return
		}
	}
	session, err := s.begin(run, server)
	if err != nil {
		return // it has just ended, and the next look tells
	}
	s.mu.Lock()
	s.server, s.session, s.run, s.said = server, session, run, ""
	if s.works {
		session.Switch(meter.Inference)
	}
	s.mu.Unlock()
	s.log.Info("metering predictions of a scoring server", "url", s.cfg.URL.Redacted(), "run", run, "pid", server.PID)
}

// find returns the process that listens where the scoring server should.
func (s *Serving) find() (meter.Process, error) {
	var errs []error
	for _, at := range s.cfg.Addresses {
		server, err := s.proxy.cfg.Meter.Listener(at)
		if err == nil {
			return server, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", at, err))
	}
	return meter.Process{}, errors.Join(errs...)
}

func (s *Serving) begin(run string, server meter.Process) (*meter.Session, error) {
	scope := s.proxy.cfg.Scope
	if scope == meter.ScopeMachine {
		server = meter.Process{}
	}
	return s.proxy.cfg.Meter.Begin("serving "+run, "", scope, server)
}

// variableModel is where mlflow models serve tells its workers the folder of the model's files, as a URL.
const variableModel = "__pyfunc_model_path__"

// modelsRun reads which run the model of a scoring server came from.
func (p *Proxy) modelsRun(server meter.Process) (string, error) {
	value, err := p.cfg.Meter.Variable(server, variableModel)
	if err != nil {
		return "", err
	}
	folder, err := url.Parse(value)
	if err != nil || folder.Path == "" || folder.Scheme != "" && folder.Scheme != "file" {
		return "", fmt.Errorf("process %d has no %s, as mlflow models serve sets it", server.PID, variableModel)
	}
	return runOfModel(p.cfg.Meter.File(server, filepath.Join(folder.Path, "MLmodel")))
}

// runOfModel reads which run a model came from out of its description.
func runOfModel(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read the model's description: %w", err)
	}
	var model struct {
		RunID string `yaml:"run_id"`
	}
	if err := yaml.Unmarshal(b, &model); err != nil {
		return "", fmt.Errorf("read the model's description %s: %w", path, err)
	}
	if model.RunID == "" {
		return "", errors.New("the model was logged outside of any run")
	}
	return model.RunID, nil
}

// harvest takes in what the server used while it worked, and how many rows it predicted. The session that goes on is a
// new one: its record would grow for ever.
func (s *Serving) harvest() {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := s.rows.Swap(0)
	if s.session == nil {
		return // and what was not metered is not counted
	}
	next, err := s.begin(s.run, s.server)
	if err == nil && s.works {
		next.Switch(meter.Inference)
	}
	s.session.Close()
	record := whileInferring(s.session.Record())
	if len(record.Segments) > 0 || rows > 0 {
		s.takeIn(s.run, due{used: s.proxy.reckon(record), rows: float64(rows), partial: cmp.Or(gapsOf(record)...)})
	}
	if s.session = next; err != nil {
		s.server, s.session = meter.Process{}, nil
	}
}

// whileInferring leaves of a record what was used in the inference phase.
func whileInferring(r meter.Record) meter.Record {
	o := meter.Record{Scope: r.Scope, Unit: r.Unit}
	for _, g := range r.Segments {
		if g.Phase == meter.Inference && g.End.After(g.Start) {
			o.Segments = append(o.Segments, g)
		}
	}
	if whole := r.Duration() + r.Asleep; whole > 0 {
		o.Machine = meter.Energy(r.Machine.Joules() * o.Duration().Seconds() / whole.Seconds()) // likewise
		for c, gap := range r.Gaps {                                                            // which are taken as spread evenly
			gap.For = time.Duration(float64(gap.For) * o.Duration().Seconds() / whole.Seconds())
			o.Gaps[c] = gap
		}
	}
	return o
}

// AddressesOf returns the addresses of this machine at which a URL's server listens. A URL that names another machine is
// an error: the energy of that cannot be read here.
func AddressesOf(ctx context.Context, u *url.URL) ([]netip.AddrPort, error) {
	port, err := strconv.ParseUint(cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]), 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s has no port from 0 to 65535", u.Redacted())
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, fmt.Errorf("%s cannot be found: %w", u.Redacted(), err)
	}
	local := LocalAddresses()
	var addresses []netip.AddrPort
	for _, a := range found {
		a = a.Unmap().WithZone("")
		if a.IsUnspecified() { // as a server's own log names it
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		if slices.ContainsFunc(local, func(p netip.Prefix) bool { return p.Contains(a) }) {
			addresses = append(addresses, netip.AddrPortFrom(a, uint16(port)))
		}
	}
	if len(addresses) == 0 {
		return nil, fmt.Errorf("%s is another machine's, whose energy cannot be read here; run a proxy there", u.Redacted())
	}
	return addresses, nil
}
