// Command mlflow-emissions-proxy stands in front of an MLflow tracking server, meters the electricity that each run uses on
// this machine, and writes the run's emissions into it.
package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"mlflow-emissions-proxy/carbon"
	"mlflow-emissions-proxy/meter"
	"mlflow-emissions-proxy/mlflow"
	"mlflow-emissions-proxy/proxy"
	"mlflow-emissions-proxy/recompute"
	"mlflow-emissions-proxy/report"
)

// version is what emissions.version says of the runs that we metered.
const version = "0.1.0"

// Exit codes: a usage error is found before any port is opened. The last two are of report --max-emissions-g, for pipelines;
// neither is an error of the command.
const (
	exitError      = 1
	exitUsage      = 2
	exitOverBudget = 3
	exitNoBudget   = 4 // it cannot be told, since a run has no figures
)

type cli struct {
	Serve       serveCmd         `cmd:"" default:"withargs" help:"Forward to an MLflow tracking server and meter its runs (the default command)."`
	Demo        demoCmd          `cmd:"" help:"Set up a private MLflow, train a few small models through the proxy and show what they emitted."`
	Report      reportCmd        `cmd:"" help:"Compare the runs of experiments by what they emitted: as a table, CSV, JSON, one HTML file or a plot."`
	Doctor      doctorCmd        `cmd:"" help:"Show what can be measured on this machine, by which method and how exactly; and what cannot, and why."`
	Locations   locationsCmd     `cmd:"" help:"List the places whose carbon intensity is known, or show one with its country's mix."`
	Recompute   recomputeCmd     `cmd:"" help:"Work out what finished runs would have emitted elsewhere or at another time, from the energy that they keep."`
	Healthcheck healthcheckCmd   `cmd:"" help:"Exit 0 if a running proxy's admin listener says ready."`
	Version     kong.VersionFlag `env:"-" help:"Print the version."`
}

// listenFlags say where to listen.
type listenFlags struct {
	Listen      address `group:"Listening" default:"127.0.0.1:5001" placeholder:"HOST:PORT" help:"The tracking URI that clients use (${default})."`
	AdminListen address `group:"Listening" default:"127.0.0.1:5002" placeholder:"HOST:PORT" help:"/healthz, /readyz and /metrics (${default}); empty turns it off."`
}

// carbonFlags say how joules become grams.
type carbonFlags struct {
	Location         string  `group:"Carbon" default:"auto" placeholder:"PLACE" help:"Where the electricity comes from, by code or name: BEL, Belgium, US-CA, SE-SE3, Frankfurt, aws:eu-west-1, gcp:europe-west1, azure:westeurope; or auto, the cloud's region where there is one, else the world's average (${default})."`
	NoCloudDetection bool    `group:"Carbon" help:"Do not ask the cloud's metadata service for the region with --location auto."`
	CarbonIntensity  *number `group:"Carbon" placeholder:"G" help:"Force the carbon intensity, in gCO2e/kWh; at least 0."`
	PUE              *number `name:"pue" group:"Carbon" placeholder:"X" help:"Power usage effectiveness; at least 1. By default the cloud region's, else 1."`
	liveFlags
}

// liveFlags say from whom to take the intensity as it changes.
type liveFlags struct {
	Live        string `group:"Carbon" placeholder:"PROVIDER" help:"Take the intensity of each hour from a provider: electricitymaps, watttime (average), watttime-marginal, gb. The key comes from ELECTRICITYMAPS_TOKEN, or WATTTIME_USER and WATTTIME_PASSWORD."`
	LiveZone    string `group:"Carbon" placeholder:"ZONE" help:"What the provider calls the place, for example US-CAL-CISO or CAISO_NORTH. By default as the tables know it."`
	LiveKeyFile string `group:"Carbon" placeholder:"FILE" help:"File with the provider's key, or user:password for WattTime, instead of the environment."`
	LiveURL     string `name:"live-url" group:"Carbon" hidden:"" help:"Base URL of the provider's server."`
}

// embodiedFlags say what making this machine emitted.
type embodiedFlags struct {
	EmbodiedKg     *number `name:"embodied-kg" group:"Carbon" placeholder:"KG" help:"What making this machine emitted, in kg of CO2e: a run's share of it is logged, and with predictions its Software Carbon Intensity."`
	EmbodiedServer string  `group:"Carbon" placeholder:"CLASS" help:"Instead of --embodied-kg: rack, or what the server has, for example 2cpu,8gpu,1024gb (Cloud Carbon Footprint's coefficients)."`
	LifespanYears  *number `group:"Carbon" placeholder:"Y" help:"With --embodied-kg: for how long the machine is used. By default 4."`
}

// embodied is the zero value where neither flag is given.
func (f embodiedFlags) embodied() (carbon.Embodied, error) {
	var e carbon.Embodied
	var err error
	switch {
	case f.EmbodiedServer != "" && (f.EmbodiedKg != nil || f.LifespanYears != nil):
		err = errors.New("--embodied-server: leave out --embodied-kg and --lifespan-years, which say the same")
	case f.EmbodiedServer != "":
		e, err = carbon.ParseServer(f.EmbodiedServer)
	case f.EmbodiedKg != nil:
		lifespan := 4.0
		if f.LifespanYears != nil {
			lifespan = float64(*f.LifespanYears)
		}
		e, err = carbon.EmbodiedGiven(float64(*f.EmbodiedKg), lifespan)
	case f.LifespanYears != nil:
		err = errors.New("--lifespan-years: give --embodied-kg, too")
	}
	if err != nil {
		return e, usageError{err}
	}
	return e, nil
}

// feed makes the feed of a place's values; nil without --live.
func (f liveFlags) feed(place carbon.Place, log *slog.Logger) (*carbon.Feed, error) {
	if f.Live == "" {
		switch {
		case f.LiveZone != "":
			return nil, usageError{errors.New("--live-zone: give the provider as well, by --live")}
		case f.LiveKeyFile != "":
			return nil, usageError{errors.New("--live-key-file: give the provider as well, by --live")}
		}
		return nil, nil
	}
	feed, err := carbon.Live{Name: f.Live, Zone: f.LiveZone, KeyFile: f.LiveKeyFile, BaseURL: f.LiveURL}.Feed(place, os.Getenv, log)
	if err != nil {
		return nil, usageError{err}
	}
	return feed, nil
}

// sensorFlags say where the sensors are.
type sensorFlags struct {
	Sysfs  string `group:"Metering" default:"/sys" placeholder:"DIR" help:"Root of the sensor files (${default}); a container mounts the host's."`
	Procfs string `group:"Metering" default:"/proc" placeholder:"DIR" help:"Root of the process files (${default})."`

	Psys        bool    `group:"Metering" help:"Read RAPL's zone of the whole platform (psys) instead of packages and memory."`
	WallSlope   *number `group:"Metering" placeholder:"X" help:"With --wall-offset-w: this machine's line from its components' power to the wall's, as doctor --calibrate finds it; above 0."`
	WallOffsetW *number `group:"Metering" placeholder:"W" help:"Power at the wall that no component's sensor sees, in watts; at least 0."`
}

// config says which sensors to read.
func (f sensorFlags) config() (meter.Config, error) {
	c := meter.Config{Procfs: f.Procfs, Sysfs: f.Sysfs, Psys: f.Psys}
	if s := f.WallSlope; s != nil {
		if !(*s > 0 && *s <= 10) {
			return c, usageError{fmt.Errorf("--wall-slope: %v is not allowed, only a number above 0 and up to 10, for example 1.12", *s)}
		}
		c.Wall.Slope = float64(*s)
	}
	if w := f.WallOffsetW; w != nil {
		if !(*w >= 0 && *w <= 100_000) {
			return c, usageError{fmt.Errorf("--wall-offset-w: %v is not allowed, only watts of at least 0, for example 57", *w)}
		}
		c.Wall.Offset = meter.Power(*w)
	}
	return c, nil
}

// meterFlags say what is a run's, and how often to look.
type meterFlags struct {
	Scope          meter.Scope `group:"Metering" default:"process" enum:"process,machine" help:"process: a run's energy is its process tree's. machine: the whole machine's (${default})."`
	Unit           meter.Unit  `group:"Metering" default:"process" enum:"process,cgroup" help:"process: the tree of the process that opened the run, or of its launcher. cgroup: all in that process's container or Slurm job (${default})."`
	LocalClients   []network   `group:"Metering" placeholder:"CIDR" help:"Clients whose runs are on this machine. By default loopback and this host's own addresses."`
	SampleInterval interval    `group:"Metering" default:"1s" help:"How often the sensors are read (${default})."`
	LogInterval    pause       `group:"Metering" default:"30s" help:"How often a running run's emissions_g is logged; 0: only at the end (${default})."`
	AccuracyMetric []string    `group:"Metering" placeholder:"KEY" help:"Metric keys to take as accuracy, first match wins. By default the usual names, test before validation before training."`
}

// survivalFlags say what outlives crashes, outages and clients that never come back.
type survivalFlags struct {
	StateDir          string `group:"Survival" placeholder:"DIR" help:"Where running sessions are kept against a crash. By default a folder under the user's cache."`
	LateWindow        pause  `group:"Survival" default:"1h" help:"How long a run that ended is completed by what comes late: an accuracy, predictions (${default})."`
	MaxIdle           pause  `group:"Survival" default:"1h" help:"How long a run without a process of its own is metered without a request about it; 0: for ever (${default})."`
	UpstreamTokenFile string `group:"Survival" placeholder:"FILE" help:"Bearer token of the proxy itself, for figures of runs whose client is gone; read anew each time. By default there is none."`
}

// token makes sure that the token can be read.
func (f survivalFlags) token() (mlflow.TokenFile, error) {
	token := mlflow.TokenFile(f.UpstreamTokenFile)
	if token == "" {
		return "", nil
	}
	if _, err := token.Token(); err != nil {
		return "", usageError{fmt.Errorf("--upstream-token-file: %w", err)}
	}
	return token, nil
}

// store opens the folder for running sessions, which by default is of the address that the proxy listens on.
func (f survivalFlags) store(listen address, log *slog.Logger) (*proxy.Store, error) {
	dir := f.StateDir
	if dir == "" {
		cache, err := mlflow.CacheDir()
		if err != nil {
			return nil, fmt.Errorf("no folder for --state-dir: %w", err)
		}
		dir = filepath.Join(cache, "state", strings.NewReplacer(":", "_", "/", "_").Replace(string(listen)))
	}
	store, err := proxy.OpenStore(dir, log)
	if errors.Is(err, proxy.ErrInUse) {
		return nil, usageError{err}
	}
	return store, err
}

// pageFlags are for the page under /emissions/.
type pageFlags struct {
	StaticPrefix urlPath `group:"Forwarding" placeholder:"PATH" help:"MLflow's own --static-prefix, where it has one that is not in --upstream: the page under /emissions/ reads MLflow there."`
}

// pages makes what answers under /emissions/.
func (f pageFlags) pages(accuracyMetrics []string, log *slog.Logger) func(*mlflow.Client) http.Handler {
	return func(c *mlflow.Client) http.Handler {
		return report.Handler(report.Config{
			Client: c, Prefix: string(f.StaticPrefix), Logger: log,
			Accuracy: func(r mlflow.Run) (float64, string, bool) { return proxy.Accuracy(r, accuracyMetrics) },
		})
	}
}

// nameFlags say under which further names figures are written.
type nameFlags struct {
	SDKNames bool `name:"sdk-names" group:"Metering" help:"Also write the names of mlflow-emissions-sdk, in grams as it does: emissions and emissions_per_10_predictions."`
}

// tlsFlags say who may call, and who is trusted.
type tlsFlags struct {
	TLSCert      string   `name:"tls-cert" group:"Security" placeholder:"FILE" help:"Serve clients over TLS with this PEM certificate; renewed on disk, it is taken up without a restart."`
	TLSKey       string   `name:"tls-key" group:"Security" placeholder:"FILE" help:"Its key."`
	UpstreamCA   string   `name:"upstream-ca" group:"Security" placeholder:"FILE" help:"PEM certificates to trust as the MLflow server's, instead of the system's."`
	UpstreamCert string   `group:"Security" placeholder:"FILE" help:"PEM certificate to show to the MLflow server, if it asks for one."`
	UpstreamKey  string   `group:"Security" placeholder:"FILE" help:"Its key."`
	AllowedHosts []string `group:"Security" placeholder:"HOST" help:"Hosts that clients may call the proxy by, with the meaning of MLflow's flag; * allows all. By default any, but at loopback only addresses, localhost and private names."`
}

// edge is what these flags come to.
type edge struct {
	clients, upstream *tls.Config // nil: no TLS; as the system does
	hosts             []string
}

// edge reads the files.
func (f tlsFlags) edge(upstream *url.URL, log *slog.Logger) (e edge, err error) {
	for _, host := range f.AllowedHosts {
		if host = strings.TrimSpace(host); host != "" {
			e.hosts = append(e.hosts, host)
		}
	}
	clients, err := keyPair("--tls-cert", f.TLSCert, "--tls-key", f.TLSKey, log)
	if err != nil {
		return e, err
	}
	if clients != nil {
		e.clients = clients.ServerTLS()
	}
	own, err := keyPair("--upstream-cert", f.UpstreamCert, "--upstream-key", f.UpstreamKey, log)
	if err != nil || own == nil && f.UpstreamCA == "" {
		return e, err
	}
	if upstream == nil || upstream.Scheme != "https" {
		return e, usageError{errors.New("--upstream-ca and --upstream-cert: need an --upstream of https://")}
	}
	if e.upstream, err = proxy.UpstreamTLS(f.UpstreamCA, own); err != nil {
		return e, usageError{fmt.Errorf("--upstream-ca: %s cannot be used: %w; give a file of PEM certificates", f.UpstreamCA, err)}
	}
	return e, nil
}

// keyPair reads what two flags name; nil where they name nothing.
func keyPair(certFlag, cert, keyFlag, key string, log *slog.Logger) (*proxy.KeyPair, error) {
	if cert == "" && key == "" {
		return nil, nil
	}
	if cert == "" || key == "" {
		return nil, usageError{fmt.Errorf("%s and %s: give both, or none", certFlag, keyFlag)}
	}
	pair, err := proxy.LoadKeyPair(cert, key, log)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s %s, %s %s: cannot be used: %w; give a PEM certificate and the key that belongs to it", certFlag, cert, keyFlag, key, err)}
	}
	return pair, nil
}

// servingFlags say which model's scoring server to stand in front of, beside the MLflow server.
type servingFlags struct {
	Serving       *baseURL `group:"Serving" placeholder:"URL" help:"A scoring server on this machine (mlflow models serve): what its predictions emit is added to the run that its model came from."`
	ServingListen address  `group:"Serving" default:"127.0.0.1:5003" placeholder:"HOST:PORT" help:"With --serving: where clients score (${default})."`
	ServingRun    string   `group:"Serving" placeholder:"RUN_ID" help:"With --serving: the run that the model came from. By default the one that the model names."`
}

var runID = regexp.MustCompile(`^[a-zA-Z0-9][\w-]{0,255}$`) // as MLflow's server takes them

// inFrontOf returns what to stand in front of; nil for nothing.
func (f servingFlags) inFrontOf(ctx context.Context) (*proxy.ServingConfig, error) {
	switch {
	case f.Serving == nil && f.ServingRun != "":
		return nil, usageError{errors.New("--serving-run: give the scoring server as well, by --serving URL")}
	case f.Serving == nil:
		return nil, nil
	case f.ServingRun != "" && !runID.MatchString(f.ServingRun):
		return nil, usageError{fmt.Errorf("--serving-run: %q is not the id of a run, for example 48b1067b668b47838a1a19dec73e315f", f.ServingRun)}
	case (*url.URL)(f.Serving).User != nil:
		return nil, usageError{fmt.Errorf("--serving: leave the credentials out of %s; clients that score send their own", (*url.URL)(f.Serving).Redacted())}
	case f.ServingListen == "":
		return nil, usageError{errors.New(`--serving-listen: "" is not HOST:PORT, for example 127.0.0.1:5003`)}
	}
	c := &proxy.ServingConfig{URL: (*url.URL)(f.Serving), Run: f.ServingRun}
	addresses, err := proxy.AddressesOf(ctx, c.URL)
	if err != nil {
		return nil, usageError{fmt.Errorf("--serving: %w", err)}
	}
	c.Addresses = addresses
	return c, nil
}

// logFlags say what to log.
type logFlags struct {
	LogLevel  logLevel `group:"Logging" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error (${default})."`
	LogFormat string   `group:"Logging" default:"text" enum:"text,json" help:"text or json (${default})."`
}

// proxyFlags are all that running a proxy takes.
type proxyFlags struct {
	listenFlags
	carbonFlags
	embodiedFlags
	meterFlags
	nameFlags
	sensorFlags
	servingFlags
	pageFlags
	survivalFlags
	logFlags
}

type serveCmd struct {
	Upstream     *baseURL `group:"Forwarding" placeholder:"URL" help:"Base URL of the MLflow server, with its path prefix if it has one. Without it the mlflow server found on PATH is started, on SQLite."`
	UpstreamHost string   `group:"Forwarding" placeholder:"HOST" help:"Host header to send upstream. By default the upstream's own."`
	tlsFlags
	proxyFlags
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run parses the command line and runs the command. It returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	exit := -1
	var c cli
	parser := kong.Must(&c,
		kong.Name("mlflow-emissions-proxy"),
		kong.Description("Stands in front of an MLflow tracking server and writes into every run what it emitted.\n\nEvery flag but recompute --write has an environment variable EMISSIONS_<FLAG>; the flag wins."),
		kong.DefaultEnvars("EMISSIONS"),
		kong.Vars{"version": "mlflow-emissions-proxy " + version},
		kong.WithHyphenPrefixedParameters(true), // a negative number is a bad value, not a flag
		kong.Writers(stdout, stderr),
		kong.Exit(func(code int) { exit = code }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
	)
	ctx, err := parser.Parse(args)
	if exit >= 0 { // --help, --version
		return exit
	}
	if err == nil {
		err = ctx.Run(streams{stdout, stderr})
	} else {
		err = usageError{errors.New(userinfo.ReplaceAllString(err.Error(), "${1}${2}xxxxx@"))}
	}
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "mlflow-emissions-proxy:", strings.ReplaceAll(err.Error(), "\n", "; "))
	var usage usageError
	var budget report.BudgetError
	switch {
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &budget) && budget.Over:
		return exitOverBudget
	case errors.As(err, &budget):
		return exitNoBudget
	}
	return exitError
}

// userinfo is what a refused value may have before its last @, quoted or not: a password, if it was to be a URL.
var userinfo = regexp.MustCompile(`(argument ).*@|(")(?:[^"\\]|\\.)*@|[^\s"]+@`)

// streams are where a command prints.
type streams struct{ out, err io.Writer }

// usageError is a fault in what the user asked for.
type usageError struct{ error }

// supply finds the electricity that the flags name. sysfs is the root of the sensor files.
func (f carbonFlags) supply(sysfs string, log *slog.Logger) (*carbon.Supply, error) {
	place := carbon.World()
	switch {
	case f.Location != "auto":
		var err error
		if place, err = carbon.Locate(f.Location); err != nil {
			return nil, usageError{fmt.Errorf("--location: %w", err)}
		}
	case f.Live == "gb":
		place, _ = carbon.Locate("GBR") // it knows no other
	case !f.NoCloudDetection:
		place = carbon.Here(carbon.Detector{Sysfs: sysfs}.Detect(context.Background()))
	}
	s, err := carbon.NewSupply(place, (*float64)(f.CarbonIntensity), (*float64)(f.PUE))
	if err != nil {
		return nil, usageError{err}
	}
	feed, err := f.feed(place, log)
	if err != nil {
		return nil, err
	}
	if feed != nil && f.CarbonIntensity == nil { // which wins
		s.Follow(feed)
	}
	return s, nil
}

func (f logFlags) logger(w io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.Level(f.LogLevel)}
	if f.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// Run is the command serve.
func (c *serveCmd) Run(s streams) error {
	// Found here and not by UnmarshalText, since a value that that refuses is shown as it is.
	if u := (*url.URL)(c.Upstream); u != nil && u.User != nil {
		return usageError{fmt.Errorf("--upstream: %s has a user in it; leave it out: credentials are the clients', and are passed on", u.Redacted())}
	}
	log := c.logger(s.err)
	edge, err := c.edge((*url.URL)(c.Upstream), log)
	if err != nil {
		return err
	}
	ctx, stop := signals(context.Background(), s.err)
	defer stop()
	return c.serve(ctx, log, upstream{url: (*url.URL)(c.Upstream), host: c.UpstreamHost}, edge, nil)
}

// upstream is the server to forward to: one that runs somewhere, or one that is started here.
type upstream struct {
	url   *url.URL
	host  string
	child *mlflow.ServerConfig
}

// signals returns a context that ends with the first SIGINT or SIGTERM; the second ends the program at once.
func signals(parent context.Context, stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(parent)
	ch := make(chan os.Signal, 2)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-ch
		cancel()
		<-ch
		fmt.Fprintln(stderr, "mlflow-emissions-proxy: ended at once by a second signal")
		os.Exit(exitError)
	}()
	return ctx, func() { signal.Stop(ch); cancel() }
}

// Time for each part of an orderly stop; together they stay under the ten seconds that container runtimes give.
const (
	requestsTime = 3 * time.Second
	figuresTime  = 3 * time.Second
	keepTime     = time.Second
	childTime    = 2 * time.Second
	sensorsTime  = 500 * time.Millisecond
)

// serve runs the proxy until ctx is done, or until work, if given, returns; work gets the tracking URI that clients use.
func (f proxyFlags) serve(ctx context.Context, log *slog.Logger, up upstream, edge edge, work func(ctx context.Context, trackingURI, serverURI *url.URL) error) error {
	supply, err := f.supply(f.Sysfs, log)
	if err != nil {
		return err
	}
	embodied, err := f.embodied()
	if err != nil {
		return err
	}
	sensors, err := f.sensorFlags.config()
	if err != nil {
		return err
	}
	token, err := f.token()
	if err != nil {
		return err
	}
	store, err := f.store(f.Listen, log)
	if err != nil {
		return err
	}
	defer store.Close()
	serving, err := f.inFrontOf(ctx)
	if err != nil {
		return err
	}
	main, admin, err := f.listen()
	if err != nil {
		return err
	}
	defer main.Close()
	var scoring net.Listener
	if serving != nil {
		if scoring, err = net.Listen("tcp", string(f.ServingListen)); err != nil {
			return fmt.Errorf("--serving-listen %s: %w; choose another port, or stop what uses it", f.ServingListen, err)
		}
		defer scoring.Close()
		for _, own := range []net.Listener{main, scoring} {
			if slices.ContainsFunc(serving.Addresses, func(at netip.AddrPort) bool { return isAt(own.Addr(), at) }) {
				return usageError{fmt.Errorf("--serving: %s is this proxy itself; give the scoring server's address", serving.URL.Redacted())}
			}
		}
	}

	if up.url == nil && up.child == nil {
		command, err := mlflow.FindServer()
		if err != nil {
			return err
		}
		up.child = &mlflow.ServerConfig{Command: command, Dir: ".", Output: os.Stderr}
	}
	var child *mlflow.Server
	var ended <-chan struct{}
	if up.child != nil {
		if child, err = mlflow.StartServer(ctx, *up.child); err != nil {
			return err
		}
		defer func() { _ = child.Stop(childTime) }()
		up.url, ended = child.URL(), child.Done()
	} else if err := reachable(ctx, up.url, main, admin); err != nil {
		return err
	}

	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	onSample, err := proxy.SampleDuration(reg)
	if err != nil {
		return err
	}
	sensors.Unit, sensors.Interval, sensors.Logger, sensors.OnSample = f.Unit, time.Duration(f.SampleInterval), log, onSample
	m := meter.New(sensors)
	local := proxy.LocalAddresses()
	if len(f.LocalClients) > 0 {
		local = nil
		for _, n := range f.LocalClients {
			local = append(local, netip.Prefix(n))
		}
	}
	host, _ := os.Hostname()
	p, err := proxy.New(proxy.Config{
		Upstream: up.url, UpstreamHost: up.host, UpstreamTLS: edge.upstream, AllowedHosts: edge.hosts,
		Meter: m, Supply: supply, Embodied: embodied, Scope: f.Scope, LocalClients: local, InPod: meter.InPod(),
		LogInterval: time.Duration(f.LogInterval), AccuracyMetrics: f.AccuracyMetric, SDKNames: f.SDKNames,
		LateWindow: time.Duration(f.LateWindow), MaxIdle: time.Duration(f.MaxIdle), Token: token,
		Host: host, Version: version, Logger: log,
		Pages: f.pages(f.AccuracyMetric, log),
	}, reg)
	if err != nil {
		return err
	}

	p.Restore(store)

	server := p.Server()
	server.TLSConfig = edge.clients
	own := &url.URL{Scheme: "http", Host: main.Addr().String()}
	if edge.clients != nil {
		own.Scheme = "https"
	}
	servers := []*http.Server{server}
	group, ctx := errgroup.WithContext(ctx)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	attributes := []any{"url", own.String(), "upstream", up.url.Redacted()}
	if admin != nil {
		adminServer := &http.Server{Handler: p.Admin(reg), ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 5 * time.Minute}
		go func() { _ = adminServer.Serve(admin) }()
		defer adminServer.Close() // it says "draining" to the very end
		attributes = append(attributes, "admin", "http://"+admin.Addr().String())
	}
	group.Go(func() error { return p.Serve(server, main) })
	var served *proxy.Serving
	if serving != nil {
		served = p.NewServing(*serving)
		if err := served.Restore(store.Dir()); err != nil {
			return err
		}
		scorer := served.Server()
		scorer.TLSConfig = edge.clients
		servers = append(servers, scorer)
		group.Go(func() error { return p.Serve(scorer, scoring) })
		group.Go(func() error { return served.Run(ctx) })
		attributes = append(attributes, "serving", "http://"+scoring.Addr().String(), "scoring_server", serving.URL.Redacted())
	}
	sampled := make(chan struct{})
	go func() { defer close(sampled); _ = m.Run(ctx) }()
	kept := make(chan struct{})
	go func() { defer close(kept); _ = p.Run(ctx, store) }()
	group.Go(func() error { return supply.Run(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-ended: // nil, and never ready, where the server is not our child
			return fmt.Errorf("the mlflow server ended by itself")
		}
	})
	group.Go(func() error {
		<-ctx.Done()
		p.NotReady()
		log.Info("stopping")
		ending, cancel := context.WithTimeout(context.Background(), requestsTime)
		defer cancel()
		for _, s := range servers {
			if s.Shutdown(ending) != nil {
				_ = s.Close()
			}
		}
		ending, cancel = context.WithTimeout(context.Background(), figuresTime)
		defer cancel()
		if served != nil {
			served.Stop(ending)
		}
		p.Drain(ending)
		all := make(chan struct{})
		go func() {
			defer close(all)
			<-kept // one at a time writes into the folder
			if served != nil {
				if err := served.Keep(store.Dir()); err != nil {
					log.Error("what serving used is lost", "error", err)
				}
			}
			_ = p.Keep(store) // it has said why not
		}()
		select {
		case <-all:
		case <-time.After(keepTime):
			log.Error("what runs used of late is not kept: a sensor does not answer")
		}
		return nil
	})
	log.Info("listening", attributes...)
	if work != nil {
		group.Go(func() error {
			defer cancel()
			return work(ctx, own, up.url)
		})
	}
	err = group.Wait()
	select {
	case <-sampled:
		m.Close()
	case <-time.After(sensorsTime): // a sensor's driver hangs, which must not keep the program from ending
	}
	return err
}

// listen opens the ports.
func (f listenFlags) listen() (main, admin net.Listener, err error) {
	if f.Listen == "" { // which net.Listen takes for any port of all networks
		return nil, nil, usageError{errors.New(`--listen: "" is not HOST:PORT, for example 127.0.0.1:5001`)}
	}
	if main, err = net.Listen("tcp", string(f.Listen)); err != nil {
		return nil, nil, fmt.Errorf("--listen %s: %w; choose another port, or stop what uses it", f.Listen, err)
	}
	if f.AdminListen == "" {
		return main, nil, nil
	}
	if admin, err = net.Listen("tcp", string(f.AdminListen)); err != nil {
		_ = main.Close()
		return nil, nil, fmt.Errorf("--admin-listen %s: %w; choose another port, or stop what uses it", f.AdminListen, err)
	}
	return main, admin, nil
}

// reachable waits a moment for the upstream: one that is not there at the start is more often a typing error than a
// server that is about to come.
// One that is this proxy's own listener would send every request round and round; what leads back in a roundabout way is
// answered when it comes.
func reachable(ctx context.Context, u *url.URL, main, admin net.Listener) error {
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		if err == nil {
			switch {
			case isOwn(c, main):
				err = usageError{fmt.Errorf("--upstream: %s is --listen, this proxy itself; give the MLflow server's address", u.Redacted())}
			case admin != nil && isOwn(c, admin):
				err = usageError{fmt.Errorf("--upstream: %s is --admin-listen, this proxy itself; give the MLflow server's address", u.Redacted())}
			}
			_ = c.Close()
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("--upstream %s cannot be reached; is the MLflow server running there? (%w)", u.Redacted(), err)
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// isAt says whether a listener accepts connections at an address of this machine.
func isAt(listener net.Addr, at netip.AddrPort) bool {
	own, _ := netip.ParseAddrPort(listener.String())
	return own.Port() == at.Port() && (own.Addr().Unmap() == at.Addr() || own.Addr().IsUnspecified())
}

// isOwn says whether a connection leads to a listener of our own.
func isOwn(c net.Conn, listener net.Listener) bool {
	to, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	from, _ := netip.ParseAddrPort(c.LocalAddr().String())
	at, _ := netip.ParseAddrPort(listener.Addr().String())
	return to.Port() == at.Port() && (to.Addr().Unmap() == at.Addr().Unmap() || at.Addr().IsUnspecified() && to.Addr() == from.Addr())
}

type demoCmd struct {
	Exit bool `help:"End after the table instead of serving until Ctrl-C."`
	proxyFlags
}

// Run is the command demo.
func (c *demoCmd) Run(s streams) error {
	ctx, stop := signals(context.Background(), s.err)
	defer stop()
	// What the user can mend is found before minutes are spent on setting up.
	if _, err := c.supply(c.Sysfs, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if _, err := c.embodied(); err != nil {
		return err
	}
	if _, err := c.config(); err != nil {
		return err
	}
	main, admin, err := c.listen()
	if err != nil {
		return err
	}
	_ = main.Close()
	if admin != nil {
		_ = admin.Close()
	}
	cache, err := mlflow.CacheDir()
	if err != nil {
		return err
	}
	env, err := mlflow.Setup(ctx, cache, nil, s.out)
	if err != nil {
		return unlessStopped(ctx, err)
	}
	dir := filepath.Join(cache, "demo")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if c.LogLevel == logLevel(slog.LevelInfo) { // the table is what people came for
		c.LogLevel = logLevel(slog.LevelWarn)
	}
	fmt.Fprintln(s.out, "Starting the MLflow server and the proxy ...")
	child := &mlflow.ServerConfig{Command: env.MLflow(), Dir: dir, Lean: true}
	return c.serve(ctx, c.logger(s.err), upstream{child: child}, edge{}, func(ctx context.Context, trackingURI, serverURI *url.URL) error {
		fmt.Fprintf(s.out, "Training four small models with the unmodified client, which is told only this:\n  MLFLOW_TRACKING_URI=%s\n", trackingURI)
		if err := mlflow.Demo(ctx, env, trackingURI, s.out); err != nil {
			return unlessStopped(ctx, err)
		}
		page, comparison, err := mlflow.PrintDemo(ctx, serverURI, trackingURI, s.out)
		if err != nil {
			return err
		}
		fmt.Fprintf(s.out, "\nCompare them at %s\nOpen %s\n", comparison, page)
		if c.Exit {
			fmt.Fprintln(s.out, "which demo serves when it is started without --exit.")
			return nil
		}
		fmt.Fprintln(s.out, "Serving until Ctrl-C.")
		<-ctx.Done()
		return nil
	})
}

// unlessStopped is the error, unless it is that what was under way ended by the user's own Ctrl-C.
func unlessStopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("stopped before the demo was done")
	}
	return err
}

type doctorCmd struct {
	Calibrate     bool     `group:"Calibration" help:"Find --wall-slope and --wall-offset-w: keeps more and more CPUs busy and asks each time what the wall meter shows."`
	CalibrateHold interval `group:"Calibration" default:"20s" help:"How long each load is held (${default})."`
	carbonFlags
	sensorFlags
}

// providerTime is how long doctor waits for a provider of carbon intensity.
const providerTime = 5 * time.Second

// Run is the command doctor.
func (c *doctorCmd) Run(s streams) error {
	supply, err := c.supply(c.Sysfs, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	sensors, err := c.config()
	if err != nil {
		return err
	}
	sensors.Logger = slog.New(slog.DiscardHandler)
	m := meter.New(sensors)
	defer m.Close()
	if c.Calibrate {
		return c.calibrate(m, s)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tMETHOD\tUSED\tERROR\tDETAIL")
	var remedies []string
	for _, f := range m.Findings() {
		used, exact := "no", ""
		if f.Used {
			used = "yes"
		}
		if f.Bounds != (meter.Bounds{}) {
			exact = fmt.Sprintf("x %.2f to x %.2f", f.Bounds.Low, f.Bounds.High)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", f.Component, f.Method, used, exact, f.Detail)
		if f.Remedy != "" {
			remedies = append(remedies, fmt.Sprintf("%s by %s: %s", f.Component, f.Method, f.Remedy))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fetching, cancel := context.WithTimeout(context.Background(), providerTime)
	defer cancel()
	if err := supply.Fetch(fetching); err != nil {
		remedies = append(remedies, "carbon intensity: "+err.Error())
	}
	intensity := supply.At(time.Now())
	fmt.Fprintf(s.out, "\nCarbon intensity: %.0f gCO2e/kWh (%s; %s), of %s (%s), PUE %.2f\n", intensity.Intensity.GPerKWh(),
		carbon.DescribeSources([]carbon.Factor{intensity}), intensity.Kind(), supply.Place().Name, supply.Place().Code, supply.PUE())
	if supply.Place().Level == carbon.WholeWorld && c.CarbonIntensity == nil {
		remedies = append(remedies, "carbon intensity: --location, with your country, state or cloud region")
	}
	if len(remedies) > 0 {
		fmt.Fprintf(s.out, "\nWhat would make it more exact:\n  %s\n", strings.Join(remedies, "\n  "))
	}
	return nil
}

// calibrate finds the machine's line from its components' power to the wall's.
func (c *doctorCmd) calibrate(m *meter.Meter, s streams) error {
	if c.WallSlope != nil || c.WallOffsetW != nil {
		return usageError{errors.New("--calibrate: leave out --wall-slope and --wall-offset-w, which are what it finds")}
	}
	ctx, stop := signals(context.Background(), s.err)
	defer stop()
	hold := time.Duration(c.CalibrateHold)
	fmt.Fprintf(s.out, "Close what else is running. Each load is held for %s, and until you have answered.\n", hold)
	answers := bufio.NewScanner(os.Stdin)
	begin := func(busy int) { fmt.Fprintf(s.out, "%d CPUs busy, from now on ...\n", busy) }
	points, err := m.Calibrate(ctx, hold/4, hold, begin, func(p meter.Point) (meter.Power, error) {
		for {
			fmt.Fprintf(s.out, "The components draw %.2f W. What does the wall meter show, in W? ", p.Components.Watts())
			if !answers.Scan() {
				return 0, errors.New("--calibrate: no reading given; type what the wall meter shows at each load")
			}
			w, err := strconv.ParseFloat(strings.TrimRight(strings.TrimSpace(answers.Text()), " W"), 64)
			if err == nil && w > 0 {
				return meter.Power(w), nil
			}
			fmt.Fprintln(s.out, "That is not a number of watts, for example 85.5.")
		}
	})
	if err != nil {
		return err
	}
	line, mean, largest, err := meter.FitLine(points)
	if err != nil {
		return fmt.Errorf("--calibrate: %w", err)
	}
	w := tabwriter.NewWriter(s.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nBUSY CPUS\tCOMPONENTS W\tWALL W\tBY THE LINE W\t")
	for _, p := range points {
		fmt.Fprintf(w, "%d\t%.2f\t%.2f\t%.2f\t\n", p.Busy, p.Components.Watts(), p.Wall.Watts(), line.Slope*p.Components.Watts()+line.Offset.Watts())
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(s.out, "\nThis machine's line, which is %.1f %% off on average and %.1f %% at most:\n  --wall-slope %.4g --wall-offset-w %.4g\n",
		100*mean, 100*largest, line.Slope, line.Offset.Watts())
	return nil
}

type reportCmd struct{ report.Command }

// Run is the command report.
func (c *reportCmd) Run(s streams) error {
	ctx, stop := signals(context.Background(), s.err)
	defer stop()
	err := c.Command.Run(ctx, os.Getenv, func(r mlflow.Run) (float64, string, bool) { return proxy.Accuracy(r, nil) }, s.out)
	var bad report.BadFlag
	if errors.As(err, &bad) {
		return usageError{bad}
	}
	return err
}

type locationsCmd struct {
	Place  string `arg:"" optional:"" help:"Show this place alone: its figure, a country's mix with the factors and both figures, and what lies within it."`
	Format string `default:"table" enum:"table,csv,json" help:"table, csv or json (${default})."`
	Sort   string `default:"code" placeholder:"COLUMN" help:"code, name, intensity, year, level or pue; with - before it the other way round (${default})."`
}

// Run is the command locations.
func (c *locationsCmd) Run(s streams) error {
	if c.Place != "" {
		place, err := carbon.Locate(c.Place)
		if err != nil {
			return usageError{err}
		}
		return carbon.WritePlace(s.out, place, c.Format)
	}
	places := carbon.Places()
	if err := carbon.Sort(places, c.Sort); err != nil {
		return usageError{err}
	}
	return carbon.WriteList(s.out, places, c.Format)
}

type recomputeCmd struct {
	Experiment      string        `required:"" placeholder:"NAME" help:"Name or id of the experiment whose finished runs are worked out again."`
	TrackingURI     baseURL       `name:"tracking-uri" env:"EMISSIONS_TRACKING_URI,MLFLOW_TRACKING_URI" default:"http://127.0.0.1:5001" placeholder:"URL" help:"The MLflow server, or a proxy before it (${default}). Credentials and certificates are those of MLflow's own variables."`
	Location        string        `group:"Carbon" placeholder:"PLACE" help:"Where the runs would have run, by code or name."`
	CarbonIntensity *number       `group:"Carbon" placeholder:"G" help:"Carbon intensity, in gCO2e/kWh; at least 0."`
	PUE             *number       `name:"pue" group:"Carbon" placeholder:"X" help:"Power usage effectiveness; at least 1. By default the cloud region's, else each run's own."`
	Profile         string        `group:"Carbon" placeholder:"FILE" help:"Your own intensity over time: lines of TIME,G with a time of day (22:00, by this machine's time zone) or a time (2026-11-25T12:00:00Z)."`
	Shift           time.Duration `group:"Carbon" placeholder:"D" help:"By how much later the runs would have run, for example 12h or -3h; with --live or --profile."`
	Write           bool          `env:"-" help:"Write the new figures into the runs. Without it nothing is written."`
	Format          string        `default:"table" enum:"table,csv,json" help:"table, csv or json (${default})."`
	liveFlags
}

// Run is the command recompute.
func (c *recomputeCmd) Run(s streams) error {
	q, err := c.question()
	if err != nil {
		return err
	}
	ctx, stop := signals(context.Background(), s.err)
	defer stop()
	client, caller, err := mlflow.FromEnvironment(os.Getenv, (*url.URL)(&c.TrackingURI))
	if err != nil {
		return usageError{err}
	}
	experiment, err := recompute.Find(ctx, client, caller, c.Experiment)
	if err != nil {
		return err
	}
	answers, err := recompute.Ask(ctx, client, caller, experiment, q)
	if err != nil {
		return err
	}
	if err := recompute.Show(s.out, answers, c.Format); err != nil {
		return err
	}
	if !c.Write {
		fmt.Fprintln(s.err, "Nothing was written; --write puts the new figures into the runs.")
		return nil
	}
	n, err := recompute.Write(ctx, client, caller, answers, time.Now())
	if n > 0 || err == nil {
		fmt.Fprintf(s.err, "%d runs were changed.\n", n)
	}
	return err
}

// question is what the flags ask for.
func (c *recomputeCmd) question() (recompute.Question, error) {
	none := recompute.Question{}
	switch {
	case c.Location == "" && c.CarbonIntensity == nil && c.Profile == "" && c.Live == "":
		return none, usageError{errors.New("recompute with what? Give --location, --carbon-intensity, --live or --profile, for example --location Sweden")}
	case c.Profile != "" && (c.Live != "" || c.CarbonIntensity != nil) || c.Live != "" && c.CarbonIntensity != nil:
		return none, usageError{errors.New("--carbon-intensity, --live and --profile: give one of them")}
	case c.Shift != 0 && c.Live == "" && c.Profile == "":
		return none, usageError{errors.New("--shift: one figure is the same at all times; give --live or --profile, too")}
	}
	place := carbon.World()
	var err error
	switch {
	case c.Location != "":
		if place, err = carbon.Locate(c.Location); err != nil {
			return none, usageError{fmt.Errorf("--location: %w", err)}
		}
	case c.Live == "gb":
		place, _ = carbon.Locate("GBR")
	}
	supply, err := carbon.NewSupply(place, (*float64)(c.CarbonIntensity), (*float64)(c.PUE))
	if err != nil {
		return none, usageError{err}
	}
	q := recompute.Question{Supply: supply, Relocate: place.Level != carbon.WholeWorld, KeepPUE: c.PUE == nil && place.PUE == 0, Shift: c.Shift}
	if q.Feed, err = c.feed(place, slog.New(slog.DiscardHandler)); err != nil {
		return none, err
	}
	if q.Feed != nil {
		supply.Follow(q.Feed)
	}
	if c.Profile != "" {
		f, err := os.Open(c.Profile)
		if err != nil {
			return none, usageError{fmt.Errorf("--profile: %w", err)}
		}
		defer f.Close()
		profile, err := carbon.ReadProfile(f, filepath.Base(c.Profile), time.Local)
		if err != nil {
			return none, usageError{fmt.Errorf("--profile: %w", err)}
		}
		supply.FollowProfile(profile)
	}
	return q, nil
}

type healthcheckCmd struct {
	AdminListen address `default:"127.0.0.1:5002" placeholder:"HOST:PORT" help:"The admin listener to ask (${default})."`
}

// Run is the command healthcheck.
func (c *healthcheckCmd) Run(streams) error {
	if c.AdminListen == "" {
		return usageError{errors.New(`--admin-listen: "" is no listener to ask; give its HOST:PORT, for example 127.0.0.1:5002`)}
	}
	// Not by HTTP_PROXY, which is for the way out: 0.0.0.0 or a name is this machine, too.
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{}}
	res, err := client.Get("http://" + string(c.AdminListen) + "/readyz")
	if err != nil {
		return fmt.Errorf("not ready: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(res.Body, 200))
		return fmt.Errorf("not ready: %s", strings.TrimSpace(string(text)))
	}
	return nil
}

// The types of flags: each names what is allowed when it refuses a value.
type (
	address  string
	baseURL  url.URL
	urlPath  string
	number   float64
	network  netip.Prefix
	interval time.Duration
	pause    time.Duration
)

func (a *address) UnmarshalText(text []byte) error {
	*a = address(text)
	if len(text) == 0 {
		return nil
	}
	_, port, err := net.SplitHostPort(string(text))
	if n, portErr := strconv.Atoi(port); err != nil || portErr != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not HOST:PORT, for example 127.0.0.1:5001", text)
	}
	return nil
}

func (u *baseURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	if err != nil || !mlflow.IsBaseURL(parsed) {
		return fmt.Errorf("%q is not a base URL: http or https, a host, and a path prefix if the server has one, for example http://127.0.0.1:5000", text)
	}
	*u = baseURL(*parsed)
	return nil
}

func (p *urlPath) UnmarshalText(text []byte) error {
	if len(text) > 0 && (text[0] != '/' || text[len(text)-1] == '/' || bytes.ContainsAny(text, "?# ")) {
		return fmt.Errorf("%q is not a path with a slash before it and none behind it, for example /mlflow", text)
	}
	*p = urlPath(text)
	return nil
}

func (n *number) UnmarshalText(text []byte) error {
	v, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		return fmt.Errorf("%q is not a number", text)
	}
	*n = number(v)
	return nil
}

func (n *network) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		addr, addrErr := netip.ParseAddr(string(text))
		if addrErr != nil {
			return fmt.Errorf("%q is not a network or an address, for example 10.0.0.0/8", text)
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	*n = network(prefix)
	return nil
}

func (i *interval) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 10*time.Millisecond || d > time.Minute {
		return fmt.Errorf("%q is not a duration between 10ms and 1m, for example 1s", text)
	}
	*i = interval(d)
	return nil
}

func (p *pause) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	if err != nil || d < 0 || d > 0 && d < time.Second {
		return fmt.Errorf("%q is not 0 or a duration of at least 1s, for example 30s", text)
	}
	*p = pause(d)
	return nil
}

// logLevel is from which level on to log.
type logLevel slog.Level

// UnmarshalText refuses all but a level's name; slog would take "info+1" as well, and says of others only that it has none.
func (l *logLevel) UnmarshalText(text []byte) error {
	switch strings.ToLower(string(text)) {
	case "debug", "info", "warn", "error":
		return (*slog.Level)(l).UnmarshalText(text)
	}
	return fmt.Errorf("%q is not allowed, only debug, info, warn or error", text)
}
