package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The journal and the snapshot are rows of frames. A frame holds the commands of one group commit:
//
//	magic "PGJ1" · length of the body, 4 bytes · CRC-32C of the body, 4 bytes · body
//	body: for each command the number of its words, then each word's length and bytes (uvarints)
//
// A frame is written only after the one before it is on disk, so a crash can tear the last one alone.
const frameMagic = "PGJ1"

const frameHeader = len(frameMagic) + 8

// maxFrame bounds what a corrupted length can make us read.
const maxFrame = 256 << 20

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errCorrupt: a frame is damaged although sound ones follow it; no crash does that.
var errCorrupt = errors.New("damaged in the middle")

func appendCommand(body []byte, args []string) []byte {
	body = binary.AppendUvarint(body, uint64(len(args)))
	for _, a := range args {
		body = binary.AppendUvarint(body, uint64(len(a)))
		body = append(body, a...)
	}
	return body
}

func appendFrame(dst, body []byte) []byte {
	dst = append(dst, frameMagic...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	dst = binary.BigEndian.AppendUint32(dst, crc32.Checksum(body, castagnoli))
	return append(dst, body...)
}

// readFrames hands every command of data to do, in order, and returns how many bytes were sound. A torn tail
// is left out silently (sound < len(data)); damage before a sound frame is errCorrupt.
func readFrames(data []byte, do func(args []string) error) (sound int, err error) {
	for sound < len(data) {
		body, ok := soundFrame(data[sound:])
		if !ok {
			for i := sound + 1; ; i++ {
				j := bytes.Index(data[i:], []byte(frameMagic))
				if j < 0 {
					return sound, nil
				}
				i += j
				if _, ok := soundFrame(data[i:]); ok {
					return sound, fmt.Errorf("%w: byte %d", errCorrupt, sound)
				}
			}
		}
		rest := body
		for len(rest) > 0 {
			var args []string
			if args, rest, ok = readCommand(rest); !ok {
				return sound, fmt.Errorf("%w: byte %d holds no command", errCorrupt, sound)
			}
			if err := do(args); err != nil {
				return sound, err
			}
		}
		sound += frameHeader + len(body)
	}
	return sound, nil
}

func soundFrame(data []byte) (body []byte, ok bool) {
	if len(data) < frameHeader || string(data[:len(frameMagic)]) != frameMagic {
		return nil, false
	}
	n := int64(binary.BigEndian.Uint32(data[4:]))
	if n > maxFrame || int64(len(data)-frameHeader) < n {
		return nil, false
	}
	body = data[frameHeader : int64(frameHeader)+n]
	return body, crc32.Checksum(body, castagnoli) == binary.BigEndian.Uint32(data[8:])
}

func readCommand(b []byte) (args []string, rest []byte, ok bool) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n == 0 || n > uint64(len(b)) {
		return nil, nil, false
	}
	b = b[w:]
	args = make([]string, 0, min(n, 1024))
	for range n {
		size, w := binary.Uvarint(b)
		if w <= 0 || size > uint64(len(b)-w) {
			return nil, nil, false
		}
		args = append(args, string(b[w:w+int(size)]))
		b = b[w+int(size):]
	}
	return args, b, true
}
