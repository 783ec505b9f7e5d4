-- fails: 4:1+5: UNION without ALL removes duplicates, for which it needs state the sql operator does not keep yet
--  hint: write UNION ALL
SELECT carrier FROM flights
UNION
SELECT carrier FROM arrivals
