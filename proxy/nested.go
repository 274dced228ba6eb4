package proxy

import "strings"

// nest puts a run into the one that its tag names now: clients may say so after they created it.
func (p *Proxy) nest(r *run, parent string) {
	p.mu.Lock()
	r.parent = parent
	p.mu.Unlock()
	if r.session == nil {
		p.lacks(r)
	} else {
		r.session.Nest(parent)
	}
}

// lacks says of the runs around one that cannot be measured that it is missing in them.
func (p *Proxy) lacks(r *run) {
	p.mu.Lock()
	defer p.mu.Unlock()
	around := p.runs[r.parent]
	for i := 0; around != nil && i < len(p.runs); i++ { // no more of them, even if two runs name each other as parent
		if around.partial == "" {
			around.partial = "a run nested in it is not in its figures: " + strings.TrimPrefix(r.unmeasured, "unmeasured: ")
		}
		around = p.runs[around.parent]
	}
}
