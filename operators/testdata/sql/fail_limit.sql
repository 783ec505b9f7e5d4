-- fails: 4:1+5: LIMIT needs a count of all rows, which is state the sql operator does not keep yet
--  hint: take as many as you want from what comes out with `logmill sql` or `logmill consume`
SELECT flight FROM flights
LIMIT 10
