package record

import "fmt"

// A CodecID names the codec that wrote a payload. It keeps one codec from reading the bytes of another
// and returning a plausible wrong value. All codecs of users share CodecCustom.
type CodecID byte

const (
	CodecCustom CodecID = iota
	CodecMsgpack
	CodecJSON
	CodecRaw
)

// String returns the codec's name for error texts.
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
