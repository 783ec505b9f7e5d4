-- fails: 2:37+5: UNION queries have different number of columns
SELECT flight, carrier FROM flights UNION ALL SELECT flight FROM arrivals
