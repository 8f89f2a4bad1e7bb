package acceptance

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idempotent-go/idempotent"
	"github.com/idempotent-go/idempotent/idemtest"
)

func TestHashKeyIsStable(t *testing.T) {
	// Keys are stored: a change of these would run everything again.
	assert.Equal(t, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", idempotent.HashKey())
	assert.Equal(t, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d", idempotent.HashKey(""))
	assert.Equal(t, "ea1cc672b17a5c99d273503a298965ef39b3616dfc46fb44022907c44f4e34fa", idempotent.HashKey("a", "bc"))
	assert.Equal(t, "95e98730d96605ac7a50fb8dfcd3e46bea8b14b5450f5ecb4fea105fa8564ac0", idempotent.HashKey(strings.Repeat("x", 300)))
}

// Every way to cut a text into parts gives another key.
func TestHashKeyTellsPartsApart(t *testing.T) {
	seen := make(map[string][]string)
	add := func(parts ...string) {
		key := idempotent.HashKey(parts...)
		other, taken := seen[key]
		require.False(t, taken && !slices.Equal(other, parts), "%q and %q", other, parts)
		seen[key] = slices.Clone(parts)
		require.Len(t, key, 64)
		require.Empty(t, strings.Trim(key, "0123456789abcdef"))
	}
	var cut func(done []string, rest string)
	cut = func(done []string, rest string) {
		add(append(done, rest)...)
		for i := range len(rest) {
			cut(append(slices.Clone(done), rest[:i+1]), rest[i+1:])
		}
	}
	// Among them texts that look like lengths, or like the separators of other libraries.
	for _, text := range []string{"abc", "a:b:c", "\x01\x01\x01\x01", "\x00\x00\x00", "\x02a\x01b", "1a1b", "a\x00b\x00", "\x80\x01\x80"} {
		cut(nil, text)
	}
	for n := range 20 {
		add(make([]string, n)...)
	}
	// Lengths of one and of two bytes.
	for _, n := range []int{126, 127, 128, 129, 16383, 16384} {
		add(strings.Repeat("x", n))
		add(strings.Repeat("x", n), "")
		add("", strings.Repeat("x", n))
	}
	assert.Greater(t, len(seen), 50)
}

func TestKeyLengths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		e := executorOn[int](t, rdb)
		for _, length := range []int{1, 2, 1023, idempotent.MaxKeySize} {
			v, err := e.Run(t.Context(), strings.Repeat("k", length), returning(length, nil))
			require.NoError(t, err)
			assert.Equal(t, length, v)
		}
		before := rdb.DBSize(t.Context()).Val()
		for _, length := range []int{0, idempotent.MaxKeySize + 1, 1 << 20} {
			key := strings.Repeat("k", length)
			_, err := e.Run(t.Context(), key, forbidden[int](t))
			_, peekErr := e.Peek(t.Context(), key)
			for _, err := range []error{err, peekErr, e.Forget(t.Context(), key), resolve(e, t.Context(), key, 1)} {
				require.ErrorIs(t, err, idempotent.ErrInvalidKey)
				assert.ErrorContains(t, err, fmt.Sprintf("%d bytes", length))
				assert.ErrorContains(t, err, "1 to 1024 bytes")
				assert.Less(t, len(err.Error()), 200, "the key is not quoted")
			}
		}
		assert.Equal(t, before, rdb.DBSize(t.Context()).Val())
	})
	assert.Equal(t, 1024, idempotent.MaxKeySize)
}

func TestEveryByteIsAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := executorOn[int](t, idemtest.NewRedis(t))
		var all []byte
		for b := range 256 {
			all = append(all, byte(b))
			for _, key := range []string{string([]byte{byte(b)}), "k" + string([]byte{byte(b)}) + "k"} {
				v, err := e.Run(t.Context(), key, returning(b, nil))
				require.NoError(t, err)
				require.Equal(t, b, v, "%q met another key", key)
			}
		}
		for _, key := range []string{string(all), strings.Repeat(string(all), 4)} {
			for range 2 {
				v, err := e.Run(t.Context(), key, returning(len(key), nil))
				require.NoError(t, err)
				require.Equal(t, len(key), v)
			}
		}
	})
}

// Keys that mean something to Redis, to glob patterns or to Cluster are keys like any other, also
// for waiters, who use them as channels.
func TestStrangeKeysAreWaitedFor(t *testing.T) {
	keys := []string{
		"*", "?", "[a-z]", "[^", "\\", "a\nb", "\r\n", "$3\r\nGET\r\n", "{tag}key", "{}", "{", "}{", " ", "\x00", "\xff\xfe",
		"ключ", "🔑", ":", "::", "idempotent:default:other", "%s%d", "'\"`", "../..", strings.Repeat("x", 1024),
	}
	for _, key := range keys {
		t.Run(fmt.Sprintf("%.20q", key), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				rdb := idemtest.NewRedis(t)
				owner, other := executorOn[string](t, rdb), executorOn[string](t, rdb)
				got := make(chan string, 1)
				v, err := owner.Run(t.Context(), key, func(ctx context.Context) (string, error) {
					info, _ := idempotent.RunInfoFromContext(ctx)
					assert.Equal(t, key, info.Key)
					go func() {
						var report idempotent.Report
						v, err := other.Run(t.Context(), key, forbidden[string](t), idempotent.WithReport(&report))
						assert.NoError(t, err)
						assert.Equal(t, idempotent.Waited, report.Source)
						got <- v
					}()
					synctest.Wait()
					return "charged", nil
				})
				require.NoError(t, err)
				assert.Equal(t, "charged", v)
				assert.Equal(t, "charged", <-got)

				status, err := other.Peek(t.Context(), key)
				require.NoError(t, err)
				assert.Equal(t, idempotent.StateSucceeded, status.State)
				require.NoError(t, other.Forget(t.Context(), key))
				assert.Zero(t, rdb.DBSize(t.Context()).Val())
			})
		})
	}
}

// No pair of a namespace and a key meets another one, however they are cut.
func TestPairsOfNamespaceAndKeyNeverMeet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		pairs := [][2]string{
			{"a", "b:c"}, {"a", "b"}, {"a", "b:c:"}, {"a", ":b:c"}, {"b", "c"}, {"a", "c"}, {"a.b", "c"}, {"a/b", "c"}, {"a-b", "c"},
			{"a", "default:c"}, {"default", "a:c"}, {"idempotent", "a:b:c"}, {"a", "idempotent:a:b:c"}, {"A", "b:c"},
		}
		names := make(map[string]bool)
		for i, pair := range pairs {
			e := executorIn[int](t, rdb, pair[0])
			v, err := e.Run(t.Context(), pair[1], returning(i, nil))
			require.NoError(t, err)
			assert.Equal(t, i, v, "%q met another pair", pair)
			names["idempotent:"+pair[0]+":"+pair[1]] = true
		}
		assert.Len(t, names, len(pairs))
		for name := range names {
			assert.EqualValues(t, 1, rdb.Exists(t.Context(), name).Val(), name)
		}
	})
}

func TestDownstreamKey(t *testing.T) {
	info := idempotent.RunInfo{Namespace: "payments", Key: "order-42", Attempt: 1}
	// Providers have seen these.
	assert.Equal(t, "8b093389cb27d4a0e02cbbaefb876089be965cf10375014f0814820b1c2f5047", info.DownstreamKey())
	again := info
	again.Attempt = 7
	assert.Equal(t, info.DownstreamKey(), again.DownstreamKey())

	seen := make(map[string]idempotent.RunInfo)
	for _, namespace := range []string{"payments", "payment", "a", "a.b", "refunds"} {
		for _, key := range []string{"order-42", "order-4", "sorder-42", "b:c", "b", "\x00", "payments"} {
			info := idempotent.RunInfo{Namespace: namespace, Key: key}
			assert.NotContains(t, seen, info.DownstreamKey())
			assert.Len(t, info.DownstreamKey(), 64)
			seen[info.DownstreamKey()] = info
		}
	}
}

// It is the same for each attempt and in each process, which is what makes it safe to hand on.
func TestDownstreamKeyOfAnExecution(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rdb := idemtest.NewRedis(t)
		var infos []idempotent.RunInfo
		for range 2 {
			e := executorIn[string](t, rdb, "payments")
			ctx, cancel := context.WithCancel(t.Context())
			_, err := e.Run(ctx, "order-42", func(ctx context.Context) (string, error) {
				info, ok := idempotent.RunInfoFromContext(ctx)
				require.True(t, ok)
				infos = append(infos, info)
				cancel()
				return "", ctx.Err()
			})
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Len(t, infos, 2)
		assert.Equal(t, idempotent.RunInfo{Namespace: "payments", Key: "order-42", Attempt: 1}, infos[0])
		assert.Equal(t, idempotent.RunInfo{Namespace: "payments", Key: "order-42", Attempt: 2}, infos[1])
		assert.Equal(t, infos[0].DownstreamKey(), infos[1].DownstreamKey())
	})
	_, ok := idempotent.RunInfoFromContext(context.Background())
	assert.False(t, ok)
}
