package detect

import "math/bits"

// stat is the sufficient statistic of a set of leaves under a noise model:
// what the model needs to say how likely the set is, added leaf by leaf. The
// first two places count leaves, of two sorts; what the others mean is the
// model's business.
type stat [5]float64

func (s *stat) leaves() float64 { return s[0] + s[1] }

func (s *stat) add(t *stat) {
	s[0] += t[0]
	s[1] += t[1]
	s[2] += t[2]
	s[3] += t[3]
	s[4] += t[4]
}

// sub takes t out again. Leaves count exactly; when none is left, nothing is.
func (s *stat) sub(t *stat) {
	for i := range s {
		s[i] -= t[i]
	}
	if s.leaves() == 0 {
		*s = stat{}
	}
}

// cuboid is one choice of attributes with the statistics of every value
// combination that occurs (the cube lattice of OLAP; Gray et al. 1997).
type cuboid struct {
	mask  uint32
	attrs []int
	stat  []stat  // per combination
	leaf  []int32 // per combination: one leaf that has it, which spells its values
	size  []int32 // per combination: how many leaves have it

	from *cuboid // the finer cuboid it is summed from; nil: from the leaves
	into []int32 // for each combination of from (or leaf): the combination here

	stride []uint64
	dense  []int32 // combination by key, -1 where none occurs; nil when sparse
	sparse map[uint64]int32
}

// lattice holds every cuboid over the table's attributes, finest first.
type lattice struct {
	cols [][]int32
	card []uint64
	by   []*cuboid // by mask
	all  []*cuboid // finer before coarser
	leaf []stat    // what remains unexplained, per leaf
}

// denseSlack bounds the memory spent on indexing a cuboid by array.
const denseSlack = 4

func newLattice(cols [][]int32, n int) *lattice {
	k := len(cols)
	l := &lattice{cols: cols, card: make([]uint64, k), by: make([]*cuboid, 1<<k), leaf: make([]stat, n)}
	for a, col := range cols {
		for _, v := range col {
			l.card[a] = max(l.card[a], uint64(v)+1)
		}
	}
	for level := k; level >= 0; level-- {
		for mask := range uint32(1 << k) {
			if bits.OnesCount32(mask) == level {
				l.by[mask] = l.build(mask, n)
				l.all = append(l.all, l.by[mask])
			}
		}
	}
	return l
}

func (l *lattice) build(mask uint32, n int) *cuboid {
	c := &cuboid{mask: mask, stride: make([]uint64, len(l.cols))}
	size := uint64(1)
	for a := range l.cols {
		if mask>>a&1 == 1 {
			c.attrs = append(c.attrs, a)
			c.stride[a] = size
			size *= max(l.card[a], 1)
		}
	}
	for a := range l.cols {
		if up := l.by[mask|1<<a]; mask>>a&1 == 0 && up != nil && (c.from == nil || len(up.leaf) < len(c.from.leaf)) {
			c.from = up
		}
	}
	rows := n
	if c.from != nil {
		rows = len(c.from.leaf)
	}
	if size <= uint64(denseSlack*rows+1024) {
		c.dense = make([]int32, size)
		for i := range c.dense {
			c.dense[i] = -1
		}
	} else {
		c.sparse = make(map[uint64]int32, rows)
	}
	c.into = make([]int32, rows)
	for i := range rows {
		leaf := int32(i)
		if c.from != nil {
			leaf = c.from.leaf[i]
		}
		key := c.key(l.cols, leaf)
		j := c.find(key)
		if j < 0 {
			j = int32(len(c.leaf))
			c.leaf = append(c.leaf, leaf)
			if c.dense != nil {
				c.dense[key] = j
			} else {
				c.sparse[key] = j
			}
		}
		c.into[i] = j
	}
	c.stat = make([]stat, len(c.leaf))
	c.size = make([]int32, len(c.leaf))
	for i, j := range c.into {
		if c.from == nil {
			c.size[j]++
		} else {
			c.size[j] += c.from.size[i]
		}
	}
	return c
}

func (c *cuboid) key(cols [][]int32, leaf int32) uint64 {
	key := uint64(0)
	for _, a := range c.attrs {
		key += uint64(cols[a][leaf]) * c.stride[a]
	}
	return key
}

// find gives the combination with that key, -1 if it does not occur.
func (c *cuboid) find(key uint64) int32 {
	if c.dense != nil {
		return c.dense[key]
	}
	if j, ok := c.sparse[key]; ok {
		return j
	}
	return -1
}

// sum recomputes every combination's statistic from the leaves'.
func (l *lattice) sum() {
	for _, c := range l.all {
		clear(c.stat)
		src := l.leaf
		if c.from != nil {
			src = c.from.stat
		}
		for i, j := range c.into {
			c.stat[j].add(&src[i])
		}
	}
}

// shorten drops attributes, the last first, which all leaves of a combination
// share anyway.
func (l *lattice) shorten(c *cuboid, j int32) (*cuboid, int32) {
	for a := len(l.cols) - 1; a >= 0; a-- {
		if c.mask>>a&1 == 0 {
			continue
		}
		up := l.by[c.mask&^(1<<a)]
		if i := up.find(up.key(l.cols, c.leaf[j])); up.size[i] == c.size[j] {
			c, j = up, i
		}
	}
	return c, j
}

// take removes the leaves of a combination from the lattice and returns their
// indices.
func (l *lattice) take(c *cuboid, j int32) []int32 {
	want := c.leaf[j]
	var gone []int32
leaves:
	for i := range l.leaf {
		for _, a := range c.attrs {
			if l.cols[a][i] != l.cols[a][want] {
				continue leaves
			}
		}
		if l.leaf[i].leaves() > 0 {
			gone = append(gone, int32(i))
		}
	}
	rows := 0
	for _, c := range l.all {
		rows += len(c.into)
	}
	// A big part is cheaper to leave out of a new sum than to subtract.
	again := len(gone)*len(l.all)*2 > rows
	for _, c := range l.all {
		for _, i := range gone {
			if again {
				break
			}
			c.stat[c.find(c.key(l.cols, i))].sub(&l.leaf[i])
		}
	}
	for _, i := range gone {
		l.leaf[i] = stat{}
	}
	if again {
		l.sum()
	}
	return gone
}
