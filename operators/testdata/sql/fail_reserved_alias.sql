-- fails: 5:18+7: the name `_flight` is reserved, as it begins with `_`
--  hint: write `AS flight`
-- fails: 5:35+7: the name `_offset` is reserved, as it begins with `_`
--  hint: write `AS offset`
SELECT flight AS _flight, _key AS _offset FROM flights
