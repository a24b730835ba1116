package detect_test

import (
	"strings"
	"testing"

	"github.com/pushguard/pushguard/limiter/detect"
)

func TestFold(t *testing.T) {
	for _, tc := range []struct{ channel, want string }{
		{"", ""},
		{"news", "news"},
		{"private-user-123", "private-user-*"},
		{"private-user-7", "private-user-*"},
		{"private-encrypted-chat_17", "private-encrypted-chat_*"},
		{"presence-room-v2", "presence-room-*"},
		{"oauth2-tokens", "oauth*-tokens"},
		{"build12x3-done", "build*x*-done"},
		{"#server-to-user-9f3a", "#server-to-user-*"},
		{"order-550e8400-e29b-41d4-a716-446655440000", "order-*"},
		{"order-550e8400-e29b-41d4-a716-446655440000-items", "order-*-items"},
		{"cache-deadbeef01", "cache-*"},
		{"feedback", "feedback"},
		{"accessed-facade", "accessed-facade"},
		{"user.aB3xK9mQzT7w", "user.*"},
		{"user.abcdefghijklmnopqrstuvwxyz", "user.*"},
		{"a-1-2-3", "a-*"},
		{"a-1--2", "a-*--*"},
		{"1", "*"},
		{"-", "-"},
	} {
		if got := string(detect.Fold(nil, tc.channel)); got != tc.want {
			t.Errorf("Fold(%q) = %q, want %q", tc.channel, got, tc.want)
		}
	}
}

func FuzzFold(f *testing.F) {
	for _, s := range []string{"private-user-123", "a-1--2", "order-550e8400-e29b-41d4-a716-446655440000", "*-*-1", strings.Repeat("9-", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := string(detect.Fold(nil, s))
		if len(got) > 200 || len(got) > len(s) {
			t.Errorf("Fold(%q) = %q is longer than the name", s, got)
		}
		if strings.ContainsAny(got, "0123456789") {
			t.Errorf("Fold(%q) = %q has digits left", s, got)
		}
		if again := string(detect.Fold(nil, got)); len(again) > len(got) {
			t.Errorf("folding %q again gives %q", got, again)
		}
	})
}

func BenchmarkFold(b *testing.B) {
	var buf [200]byte
	b.ReportAllocs()
	for b.Loop() {
		detect.Fold(buf[:0], "private-user-1234567")
	}
}
