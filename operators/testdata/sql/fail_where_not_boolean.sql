-- fails: 2:34+10: cannot create filter with non-boolean predicate 'flights.flight + Int64(1)' returning Int64
SELECT flight FROM flights WHERE flight + 1
