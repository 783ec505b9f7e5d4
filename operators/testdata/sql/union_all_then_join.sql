SELECT u.flight, a.name FROM (SELECT carrier, flight FROM flights UNION ALL SELECT carrier, flight FROM arrivals) u
JOIN airlines a ON a.carrier = u.carrier
