package record

import "fmt"

// A codecID in the record keeps one codec from reading what another one wrote and making
// something plausible of it. Codecs from outside share codecCustom.
type CodecID byte

const (
	CodecCustom CodecID = iota
	CodecMsgpack
	CodecJSON
	CodecRaw
)

func (id CodecID) String() string {
	switch id {
	case CodecCustom:
		return "custom"
	case CodecMsgpack:
		return "msgpack"
	case CodecJSON:
		return "JSON"
	case CodecRaw:
		return "raw"
	}
	return fmt.Sprintf("unknown (%d)", byte(id))
}
