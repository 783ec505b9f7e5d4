-- fails: 5:16+15: cannot coerce arithmetic expression Float64 + Utf8 to valid types
-- fails: 5:38+13: cannot coerce arithmetic expression Timestamp(µs, "UTC") * Int64 to valid types
-- fails: 7:13+7: cannot infer common argument type for logical boolean operation Utf8 AND Null
-- fails: 7:26+8: cannot infer common argument type for comparison operation List(Struct("to": Utf8, "minutes": Int32)) > Int64
SELECT flight, delay + carrier AS x, scheduled * 2 AS y
FROM flights
WHERE upper(carrier) AND legs > 3
