package pusher

// AppendString appends s as a JSON string. Only what JSON demands is escaped, so
// every other byte, valid UTF-8 or not, arrives as it is.
func AppendString(dst, s []byte) []byte {
	const digits = "0123456789abcdef"
	dst = append(dst, '"')
	sc := scan{b: s}
	for i := 0; ; {
		j := sc.plain(i)
		dst = append(dst, s[i:j]...)
		if j == len(s) {
			return append(dst, '"')
		}
		switch c := s[j]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i = j + 1
	}
}

// AppendEvent appends p as the body of POST /apps/ID/events, with the members
// that are not known here as they came.
func AppendEvent(dst []byte, p *Publish) []byte {
	dst = AppendString(append(dst, `{"name":`...), p.Name)
	dst = append(dst, `,"channels":[`...)
	for i, name := range p.Channels {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = AppendString(dst, name)
	}
	return appendRest(append(dst, ']'), p)
}

// AppendBatchEvent appends p, which has one channel, as an element of the batch
// of POST /apps/ID/batch_events.
func AppendBatchEvent(dst []byte, p *Publish) []byte {
	dst = AppendString(append(dst, `{"name":`...), p.Name)
	dst = AppendString(append(dst, `,"channel":`...), p.Channels[0])
	return appendRest(dst, p)
}

func appendRest(dst []byte, p *Publish) []byte {
	dst = AppendString(append(dst, `,"data":`...), p.Data)
	if len(p.SocketID) > 0 {
		dst = AppendString(append(dst, `,"socket_id":`...), p.SocketID)
	}
	if p.HasInfo {
		dst = AppendString(append(dst, `,"info":`...), p.Info)
	}
	return append(append(dst, p.Extra...), '}')
}
