module example.test/shop

go 1.25

require example.test/till v1.2.3
