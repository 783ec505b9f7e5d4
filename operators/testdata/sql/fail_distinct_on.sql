-- fails: 3:8+8: DISTINCT must remember every row, which is state the sql operator does not keep yet
--  hint: keep the duplicates here, and remove them from what comes out with `logmill sql`
SELECT DISTINCT ON (carrier) carrier, flight FROM flights
