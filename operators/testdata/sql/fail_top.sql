-- fails: 3:8+3: TOP needs a count of all rows, which is state the sql operator does not keep yet
--  hint: take as many as you want from what comes out with `logmill sql` or `logmill consume`
SELECT TOP 3 flight FROM flights
