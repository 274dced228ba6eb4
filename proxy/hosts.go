package proxy

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"sync"
)

// invalidHost is the server's own answer to a Host that it does not allow: mlflow/server/security_utils.py of 3.17.2.
const invalidHost = "Invalid Host header - possible DNS rebinding attack detected"

// hosts refuses requests whose Host is not allowed. A page of anybody's, loaded from evil.example, may let that name
// point to 127.0.0.1 a moment later, and then its scripts read what answers there: only the Host gives them away. The
// server cannot see it, since it is sent its own.
type hosts struct {
	next    http.Handler
	allowed func(r *http.Request) bool
	log     *slog.Logger
	warn    sync.Once // then at debug: hostile requests must not fill a disk
}

func newHosts(next http.Handler, patterns []string, log *slog.Logger) *hosts {
	h := &hosts{next: next, log: log, allowed: usualHosts()}
	if len(patterns) > 0 {
		h.allowed = matchHosts(patterns)
	}
	return h
}

// ServeHTTP forwards what is allowed. As in MLflow, whoever asks for /health or /version need not know a name.
func (h *hosts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.allowed(r) || r.URL.Path == "/health" || r.URL.Path == "/version" {
		h.next.ServeHTTP(w, r)
		return
	}
	level := slog.LevelDebug
	h.warn.Do(func() { level = slog.LevelWarn })
	h.log.Log(r.Context(), level, "refused a request for a Host that is not allowed; if it is a name of yours, give it by --allowed-hosts", "host", r.Host)
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(invalidHost))
}

// privateSuffixes end names that nobody can register, and so let point to somewhere else: RFC 6761, RFC 6762, RFC 8375, and
// .internal, which ICANN reserved in 2024. host.docker.internal is one: Docker Desktop lets it end at the host's loopback.
var privateSuffixes = []string{".localhost", ".local", ".home.arpa", ".internal"}

// usualHosts is what is allowed where nothing is said. Unlike MLflow's own default, which takes loopback and private
// addresses only, it breaks no client that calls the proxy by a name, and still lets no page in that was rebound to
// loopback: there, a name that anybody could have registered is refused. Addresses are read as such, so that
// 192.168.evil.example, which MLflow's pattern 192.168.* takes, is a name.
func usualHosts() func(r *http.Request) bool {
	self, _ := os.Hostname()
	return func(r *http.Request) bool {
		name := r.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		if name == "" {
			return false
		}
		if !strings.Contains(name, ".") || strings.EqualFold(name, self) { // no name of the world has one label
			return true
		}
		if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil { // a page from an address is this address's own
			return true
		}
		for _, suffix := range privateSuffixes {
			if strings.HasSuffix(name, suffix) {
				return true
			}
		}
		return !connectionOf(r).local.Addr().Unmap().IsLoopback()
	}
}

// matchHosts allows what patterns name, with MLflow's meaning: one with an asterisk is Python's fnmatch, any other is the
// whole Host, with its port; "*" allows all, and no Host at all.
func matchHosts(patterns []string) func(r *http.Request) bool {
	exact := map[string]bool{}
	var globs []*regexp.Regexp
	for _, p := range patterns {
		switch {
		case p == "*":
			return func(*http.Request) bool { return true }
		case strings.Contains(p, "*"):
			globs = append(globs, fnmatch(p))
		default:
			exact[p] = true
		}
	}
	return func(r *http.Request) bool {
		if r.Host == "" {
			return false
		}
		if exact[r.Host] {
			return true
		}
		for _, g := range globs {
			if g.MatchString(r.Host) {
				return true
			}
		}
		return false
	}
}

// fnmatch translates a pattern of Python's module of that name: *, ?, [abc], [!abc]. path.Match has another escape, and an
// asterisk that stops at a slash.
func fnmatch(pattern string) *regexp.Regexp {
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	for p := []rune(pattern); len(p) > 0; {
		length := 1
		switch p[0] {
		case '*':
			re.WriteString(".*")
		case '?':
			re.WriteByte('.')
		case '[':
			var set string
			if set, length = fnmatchSet(p); length == 0 { // not closed: it stands for itself
				set, length = `\[`, 1
			}
			re.WriteString(set)
		default:
			re.WriteString(regexp.QuoteMeta(string(p[0])))
		}
		p = p[length:]
	}
	re.WriteString(`\z`)
	return regexp.MustCompile(re.String())
}

// fnmatchSet translates the set that a pattern begins with, and says how long it is; 0 if it is not closed.
func fnmatchSet(p []rune) (set string, length int) {
	first := 1
	negated := len(p) > 1 && p[1] == '!'
	if negated {
		first = 2
	}
	end := first + 1 // a bracket that comes first is a member
	for end < len(p) && p[end] != ']' {
		end++
	}
	if end >= len(p) {
		return "", 0
	}
	var members strings.Builder
	for i := first; i < end; i++ {
		from, to := p[i], p[i]
		if i+2 < end && p[i+1] == '-' {
			to = p[i+2]
			i += 2
		}
		if from <= to { // else the range is empty, as in Python
			fmt.Fprintf(&members, `\x{%x}-\x{%x}`, from, to)
		}
	}
	switch {
	case members.Len() == 0 && negated:
		return ".", end + 1
	case members.Len() == 0:
		return `[^\x{0}-\x{10FFFF}]`, end + 1 // nothing
	case negated:
		return "[^" + members.String() + "]", end + 1
	}
	return "[" + members.String() + "]", end + 1
}
