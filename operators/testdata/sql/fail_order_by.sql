-- fails: 4:1+5: ORDER BY needs the end of the stream, which does not come
--  hint: rows flow in the order they arrive; sort what comes out with `logmill sql`
SELECT flight FROM flights
ORDER BY flight DESC
