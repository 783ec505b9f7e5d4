-- fails: 2:16+15: cannot coerce arithmetic expression Float64 + Utf8 to valid types
SELECT flight, delay + carrier AS x FROM flights
