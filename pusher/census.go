package pusher

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ReadChannels reads the answer to GET /apps/ID/channels while it arrives, {"channels":{"NAME":{"user_count":N}}}, and
// calls each for every channel; users is -1 where the answer has no user_count. It keeps nothing, so that an app with a
// million channels costs no memory for their names. each ends it with false, which is no error. What else the answer
// holds is passed over.
func ReadChannels(r io.Reader, each func(channel string, users int64) bool) error {
	dec := json.NewDecoder(r)
	if err := expect(dec, '{'); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return unreadable(err)
		}
		if key != "channels" {
			var other json.RawMessage
			if err := dec.Decode(&other); err != nil {
				return unreadable(err)
			}
			continue
		}
		if err := expect(dec, '{'); err != nil {
			return err
		}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return unreadable(err)
			}
			var attributes struct {
				UserCount *int64 `json:"user_count"`
			}
			if err := dec.Decode(&attributes); err != nil {
				return unreadable(err)
			}
			users := int64(-1)
			if attributes.UserCount != nil {
				users = *attributes.UserCount
			}
			if !each(name.(string), users) {
				return nil
			}
		}
		return expect(dec, '}')
	}
	return errors.New("the answer has no channels in it")
}

// ReadChannel reads the answer to GET /apps/ID/channels/NAME?info=subscription_count. counted is false when the answer
// has no count in it, as where the app's settings do not allow it; an empty channel has none of any kind.
func ReadChannel(r io.Reader) (subscribers int64, counted bool, err error) {
	var answer struct {
		Occupied          *bool  `json:"occupied"`
		SubscriptionCount *int64 `json:"subscription_count"`
	}
	if err := json.NewDecoder(r).Decode(&answer); err != nil {
		return 0, false, unreadable(err)
	}
	switch {
	case answer.SubscriptionCount != nil && *answer.SubscriptionCount >= 0:
		return *answer.SubscriptionCount, true, nil
	case answer.Occupied != nil && !*answer.Occupied:
		return 0, true, nil
	}
	return 0, false, nil
}

func expect(dec *json.Decoder, want json.Delim) error {
	t, err := dec.Token()
	if err != nil {
		return unreadable(err)
	}
	if t != want {
		return fmt.Errorf("the answer is not of Pusher's form: %v where %v belongs", t, want)
	}
	return nil
}

func unreadable(err error) error {
	var form *json.UnmarshalTypeError
	if errors.As(err, &form) {
		return fmt.Errorf("the answer is not of Pusher's form: it holds %s at byte %d", form.Value, form.Offset)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("the answer cannot be read: %w", err)
}

// ReadUserCount reads the answer to GET /apps/ID/channels/NAME?info=user_count for a presence channel. Its users may
// hold several connections each.
func ReadUserCount(r io.Reader) (users int64, counted bool, err error) {
	var answer struct {
		Occupied  *bool  `json:"occupied"`
		UserCount *int64 `json:"user_count"`
	}
	if err := json.NewDecoder(r).Decode(&answer); err != nil {
		return 0, false, unreadable(err)
	}
	switch {
	case answer.UserCount != nil && *answer.UserCount >= 0:
		return *answer.UserCount, true, nil
	case answer.Occupied != nil && !*answer.Occupied:
		return 0, true, nil
	}
	return 0, false, nil
}
