package trial

// Each visits what was published in the seconds after from and until until, with how often; where only a part of the
// channels is remembered, n stands for all.
func (h *History) Each(from, until int64, visit func(app, caller, event string, channels []string, n int64)) {
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		for j := range s.entries {
			if e := &s.entries[j]; e.second > from && e.second <= until {
				visit(e.app, e.caller, e.event, e.channels, int64(e.n)<<e.level)
			}
		}
		s.mu.Unlock()
	}
}
