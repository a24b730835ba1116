package detect

import "math"

// price is what a combination's publishes cost. It is money and no behaviour: it scales
// nobody's count, and has a test of its own, for what costs several times as
// much from one minute to the next (see expensive).
type price struct {
	part [parts]struct{ publishes, messages float64 } // as the window of the learning scale
	at   int
	// What was seen in the last hours, half forgotten in six: publishes, their messages, and the
	// squares of what one of a part cost on average, weighed by publishes.
	publishes, messages, squares float64
}

func (p *price) count(publishes, messages int64) {
	p.part[p.at].publishes += float64(publishes)
	p.part[p.at].messages += float64(messages)
}

// turn ends a part of fifteen seconds.
func (p *price) turn() {
	p.at = (p.at + 1) % parts
	p.part[p.at].publishes, p.part[p.at].messages = 0, 0
}

// priceKeep is the part that is left after two minutes.
var priceKeep = math.Exp2(-120.0 / (6 * 3600))

// learn takes up the oldest half of the window: what costs more now does not yet say
// what is usual.
func (p *price) learn() {
	p.publishes, p.messages, p.squares = p.publishes*priceKeep, p.messages*priceKeep, p.squares*priceKeep
	for i := range p.part {
		x := &p.part[i]
		if i == p.at || x.publishes == 0 {
			continue
		}
		mean := x.messages / x.publishes
		if usual := p.mean(); usual > 0 && p.publishes > 200 {
			mean = min(mean, 1.5*usual)
		}
		p.publishes += x.publishes
		p.messages += mean * x.publishes
		p.squares += mean * mean * x.publishes
	}
}

// mean is the usual price of a publish, or what was seen so far; 0: nothing was.
func (p *price) mean() float64 {
	if p.publishes > 0 {
		return p.messages / p.publishes
	}
	n, m := p.last(parts)
	if n == 0 {
		return 0
	}
	return m / n
}

// last are the publishes and messages of the last parts.
func (p *price) last(many int) (publishes, messages float64) {
	for i := range many {
		x := &p.part[(p.at+parts-i)%parts]
		publishes += x.publishes
		messages += x.messages
	}
	return publishes, messages
}

// priceRatio is how many times as much publishes cost that are an incident.
const priceRatio = 1.7

// expensive reports by how much the messages of the last minute are more than the
// publishes usually cost, a second; 0 where that is chance. Each half minute must show it.
func (p *price) expensive() (extra, ratio float64) {
	n, m := p.last(4)
	usual := p.mean()
	if n < 8 || usual == 0 || p.publishes < 100 || m < priceRatio*usual*n {
		return 0, 0
	}
	n2, m2 := p.last(2)
	if n2 < 3 || n-n2 < 3 || m2 < priceRatio*usual*n2 || m-m2 < priceRatio*usual*(n-n2) {
		return 0, 0
	}
	// The mean of a part scatters by chance; that of several parts less.
	variance := max(p.squares/p.publishes-usual*usual, (0.02*usual)*(0.02*usual))
	if over := m/n - usual; over*over < 36*variance/3 {
		return 0, 0
	}
	return (m - usual*n) / 60, m / n / usual
}
