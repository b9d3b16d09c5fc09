"""The embedded counselling task: client statements and counsellor replies, both written by a generator of ours."""
