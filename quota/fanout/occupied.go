package fanout

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"time"

	"github.com/cespare/xxhash/v2"
)

// occupied is what one poll of Pusher's list of channels showed: a Bloom filter of the channels that had subscribers,
// 10 bits each, and never a name. One channel in a hundred that is empty is taken for occupied, which costs what it
// would cost without the poll; none that is occupied is taken for empty. Not changed once it is made.
type occupied struct {
	second int64 // when Pusher was asked
	words  []uint64
	n      int
	before *occupied // the poll before; its own before is nil
}

const (
	bloomBits   = 10 // a channel
	bloomHashes = 7
	// maxOccupied bounds one poll, and so the memory: 2.5 MB for two million channels, twice because the poll before is
	// kept. A list that is longer is not used.
	maxOccupied = MaxLearned
	// clockSkew is how much a poll must be newer than what was learned otherwise to count for more: clocks differ.
	clockSkew = 10
)

// outdates says that the poll is news against x. A webhook that says empty was true until another comes.
func (o *occupied) outdates(x fact) bool { return o.second > x.second+clockSkew }

func (o *occupied) has(h uint64) bool {
	size := uint64(len(o.words)) * 64
	step := h>>17 | h<<47 | 1
	for i := range uint64(bloomHashes) {
		bit, _ := bits.Mul64(h+i*step, size)
		if o.words[bit/64]>>(bit%64)&1 == 0 {
			return false
		}
	}
	return true
}

func (o *occupied) add(h uint64) {
	size := uint64(len(o.words)) * 64
	step := h>>17 | h<<47 | 1
	for i := range uint64(bloomHashes) {
		bit, _ := bits.Mul64(h+i*step, size)
		o.words[bit/64] |= 1 << (bit % 64)
	}
}

// ChannelList is a list of channels with subscribers, as it comes in from Pusher: 8 bytes each. The zero value is empty.
type ChannelList struct{ hashes []uint64 }

// Add counts one channel. It reports false when there are more than the two million that a poll can hold.
func (c *ChannelList) Add(channel string) bool {
	if len(c.hashes) >= maxOccupied {
		return false
	}
	c.hashes = append(c.hashes, xxhash.Sum64String(channel))
	return true
}

// Len is how many channels were added.
func (c *ChannelList) Len() int { return len(c.hashes) }

// LearnOccupied takes a whole list of the app's channels with subscribers, as Pusher gave it to a question that was
// asked at asked (before the question: what happens meanwhile is newer). It returns the list's form for
// MergeOccupied on the other replicas.
func (f *Table) LearnOccupied(asked time.Time, all *ChannelList) []byte {
	f.Tick(asked)
	words := (len(all.hashes)*bloomBits + 63) / 64
	o := &occupied{second: secondOf(asked), words: make([]uint64, max(words, 1)), n: len(all.hashes)}
	for _, h := range all.hashes {
		o.add(h)
	}
	f.setOccupied(o)
	out := binary.BigEndian.AppendUint64(nil, uint64(o.second))
	out = binary.BigEndian.AppendUint64(out, uint64(o.n))
	for _, w := range o.words {
		out = binary.BigEndian.AppendUint64(out, w)
	}
	return out
}

// MergeOccupied takes what another replica's LearnOccupied returned, if it is newer.
func (f *Table) MergeOccupied(list []byte) error {
	words := (len(list) - 16) / 8
	if words < 1 || words > (maxOccupied*bloomBits+63)/64 || len(list)%8 != 0 {
		return errors.New("the shared list of occupied channels has an impossible length")
	}
	o := &occupied{second: int64(binary.BigEndian.Uint64(list)), n: int(binary.BigEndian.Uint64(list[8:])), words: make([]uint64, words)}
	for i := range o.words {
		o.words[i] = binary.BigEndian.Uint64(list[16+8*i:])
	}
	f.setOccupied(o)
	return nil
}

func (f *Table) setOccupied(o *occupied) {
	for {
		old := f.occupied.Load()
		if old != nil {
			if old.second >= o.second {
				return
			}
			before := *old
			before.before = nil
			o.before = &before
		}
		if f.occupied.CompareAndSwap(old, o) {
			return
		}
	}
}

// Occupied is how many channels had subscribers at the last poll, and when that was; zero time: never asked.
func (f *Table) Occupied() (n int, asOf time.Time) {
	o := f.occupied.Load()
	if o == nil {
		return 0, time.Time{}
	}
	return o.n, timeOf(o.second)
}
