SELECT flight FROM flights WHERE delay BETWEEN 0 AND 16 AND carrier IN ('AA', 'DL')
