// Package slot knows which slot of a Redis Cluster a name is in.
package slot

import "strings"

// Count is how many slots there are.
const Count = 16384

// Of returns the slot of a key or a sharded channel: CRC16 (XMODEM) of its hash tag or of all of it,
// as the Redis Cluster specification has it.
func Of(name string) int {
	if _, rest, ok := strings.Cut(name, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			name = tag
		}
	}
	var crc uint16
	for _, b := range []byte(name) {
		crc ^= uint16(b) << 8
		for range 8 {
			high := crc&0x8000 != 0
			crc <<= 1
			if high {
				crc ^= 0x1021
			}
		}
	}
	return int(crc % Count)
}
