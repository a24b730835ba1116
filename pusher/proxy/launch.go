package proxy

import "time"

// Calls that nobody waits for: a request of the express lane leaves, and is gone
// on with when there is an answer. What would have to wait before its call is made
// goes the way of carry, and waits all the way.

// errand is a call that was left, with what is needed to go on from it.
type errand struct {
	pr      *principal
	out     outgoing
	batch   bool
	sending int
	now     time.Time
	began   time.Time
}

// arrive goes on with a publish whose call was launched.
func (p *Proxy) arrive(j *job, got answer) {
	e := j.errand
	j.errand = errand{}
	p.settle(j, e.pr, e.batch, e.sending, &got, e.now)
	p.conclude(j, e.pr, e.batch, e.out.path, got, e.now)
}

// launch is carry without waiting for anything, for the call of j.errand. begun is
// false if that is not possible now; then nothing has happened. left says that v
// goes on, by land, and that neither j nor v are the caller's any more; otherwise
// the caller goes on with got.
func (a *App) launch(j *job, v *visit) (got answer, begun, left bool) {
	e := &j.errand
	j.wait.j = j
	if a.order.strict(&j.wait, e.pr.caller.Name()) {
		return got, false, false
	}
	if a.fold == nil {
		if begun, left = a.Upstream.launch(j, v); begun && !left {
			got = a.Upstream.landed(j, v, e)
		}
		return got, begun, left
	}
	door, began := a.Upstream.admission, j.judged
	if !door.enterNow(j.class()) {
		if door.busy.Load() {
			v.full()
		}
		return got, false, false
	}
	defer func() {
		if !left {
			door.done(began, &got)
		}
	}()
	e.began = began
	got, left = a.fold.send(j, e.pr, e.batch, e.sending, e.out, e.now, v)
	return got, true, left
}

// land is what became of a call that was launched and left.
func (a *App) land(j *job, v *visit) (got answer) {
	e := &j.errand
	if a.fold == nil {
		return a.Upstream.landed(j, v, e)
	}
	defer a.Upstream.admission.done(e.began, &got)
	return a.fold.resumed(&j.wait, e.now)
}

// launch begins the call of j.errand, if nothing stands in its way for which it
// would have to wait; otherwise nothing has happened. left says that v goes on
// when there is an answer, and that neither j nor v are the caller's any more; if
// it is false, there is something already, and the caller goes on.
func (u *Upstream) launch(j *job, v *visit) (begun, left bool) {
	if u.conns == nil || u.sink != nil || j.trace != nil || !u.conns.Reserve(&v.call) {
		return false, false
	}
	e := &j.errand
	if !u.admission.enterNow(j.class()) {
		if u.admission.busy.Load() {
			v.full()
		}
		u.conns.Cancel(&v.call)
		return false, false
	}
	if !u.off && !u.breaker.TryAcquirePermit() {
		u.admission.leave(j.judged, j.judged, false, false)
		u.conns.Cancel(&v.call)
		return false, false
	}
	u.sign(j, &e.out, e.now)
	e.began = j.judged
	j.wire = u.appendRequest(j.wire[:0], e.out, j.target)
	v.leave(j)
	if left = u.conns.Start(&v.call, j.wire, j.due.began(u.timeout), v); !left {
		v.leave(nil)
	}
	return true, left
}

// landed is what became of a call that was launched.
func (u *Upstream) landed(j *job, v *visit, e *errand) (got answer) {
	defer u.admission.done(e.began, &got)
	if j.answered {
		j.resp.Reset()
	}
	j.answered = true
	err := u.conns.Finish(&v.call, j.wire, &j.resp, j.due.began(u.timeout))
	return u.became(j, &e.out, err, e.began, e.now)
}
